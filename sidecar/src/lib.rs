//! The embark sidecar.
pub mod cache;
pub mod clock;
pub mod embedding;
pub mod error;
pub mod key;
pub mod model;
