//! The EmbeddingModel custom resource and what it resolves to. The crate has two faces that do not leak into each other:
//!
//! - [`v1alpha1`] is what users write: raw, optional, in Kubernetes' terms;
//! - [`contract`] is what the operator writes and the sidecar reads: resolved, every default filled in.
//!
//! [`resolve()`](resolve::resolve) goes from the one to the other, or says everything that is wrong, each with its field.
//! [`manifest::read`] reads what users write without Kubernetes; [`rules`] and [`schema`] are what both judge by.

pub mod contract;
#[cfg(feature = "kube")]
pub mod crd;
mod defaults;
pub mod digest;
mod field;
pub mod manifest;
pub mod resolve;
pub mod rules;
pub mod schema;
pub mod v1alpha1;
