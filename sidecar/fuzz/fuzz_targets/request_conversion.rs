//! Messages of the gRPC API, from their bytes to what the server works with.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    embark_sidecar::fuzzing::request(bytes);
});

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    embark_sidecar::fuzzing::replay(embark_sidecar::fuzzing::request)
}
