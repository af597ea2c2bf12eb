//! The sidecar as its users have it: a process of its own, asked over gRPC, with real models.

mod bad_manifests;
mod bad_models;
mod cache;
mod cli;
mod kills;
mod store_faults;
