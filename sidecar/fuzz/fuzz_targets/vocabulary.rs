//! The file of a vocabulary.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    embark_sidecar::fuzzing::vocabulary(bytes);
});

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    embark_sidecar::fuzzing::replay(embark_sidecar::fuzzing::vocabulary)
}
