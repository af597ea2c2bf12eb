//! What the tests of the whole product share: real processes on real ports, and what they are given.

pub mod api_proxy;
pub mod authority;
pub mod cert_manager;
pub mod cluster;
pub mod collector;
pub mod documents;
pub mod held;
pub mod image;
pub mod injection;
pub mod long;
pub mod manifest;
pub mod mount;
pub mod network;
pub mod onnx;
pub mod operator;
pub mod programs;
pub mod random;
pub mod raw;
pub mod refusal;
pub mod release;
pub mod rights;
pub mod sidecar;
pub mod speaker;
pub mod transcript;

pub use api_proxy::ApiProxy;
pub use authority::Authority;
pub use held::Held;
pub use manifest::Manifest;
pub use mount::Mount;
pub use random::Random;
pub use sidecar::Sidecar;
pub use speaker::Speaker;

use std::io::Write as _;

/// Tells the person who waits something of a test that passes: what it prints is shown of those that fail alone. `tests/run`
/// has a file for it.
pub fn note(line: &str) {
    // Not by a macro, whose output is captured.
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(file) = std::env::var_os("STAGE_NOTES") {
        let file = std::fs::File::options().create(true).append(true).open(file);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}
