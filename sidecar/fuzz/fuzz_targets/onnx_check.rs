//! What is checked of an ONNX file before the runtime sees it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    embark_sidecar::fuzzing::onnx(bytes);
});

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    embark_sidecar::fuzzing::replay(embark_sidecar::fuzzing::onnx)
}
