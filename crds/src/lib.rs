//! The EmbeddingModel custom resource and what it resolves to. The crate has two faces that do not leak into each other:
//!
//! - [`v1alpha1`] is what users write: raw, optional, in Kubernetes' terms;
//! - [`contract`] is what the operator writes and the sidecar reads: resolved, every default filled in.
//!
//! [`resolve()`](resolve::resolve) goes from the one to the other, or says everything that is wrong, each with its field.

pub mod contract;
pub mod digest;
