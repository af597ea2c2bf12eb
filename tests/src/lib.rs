//! What the tests of the whole product share: real processes on real ports, and manifests for them.

pub mod manifest;
pub mod programs;
pub mod raw;
pub mod refusal;
pub mod sidecar;

pub use manifest::Manifest;
pub use sidecar::Sidecar;
