//! What the tests of the whole product share: real processes on real ports, and what they are given.

pub mod api_proxy;
pub mod authority;
pub mod cluster;
pub mod collector;
pub mod documents;
pub mod held;
pub mod image;
pub mod injection;
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

pub use api_proxy::ApiProxy;
pub use authority::Authority;
pub use held::Held;
pub use manifest::Manifest;
pub use mount::Mount;
pub use random::Random;
pub use sidecar::Sidecar;
