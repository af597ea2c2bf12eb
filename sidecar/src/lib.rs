//! The sidecar: embeddings over gRPC, computed by tract, remembered by sled.
//!
//! ```text
//! listen ──► grpc ──► embedder ──► cache (memory, disk)      served: the models and how far each one is
//!                        └──► flight ──► (fetch) ──► cpu_pool ──► batch ──► model::engine
//! app builds all of it from config, and takes it down; http is the admin port; cli the commands for people
//! ```

pub mod app;
pub mod args;
pub mod batch;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cpu_pool;
pub mod embedder;
pub mod embedding;
pub mod error;
pub mod fetch;
pub mod flight;
pub mod fuzzing;
pub mod grpc;
pub mod http;
pub mod input;
pub mod key;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod pb;
pub mod policy;
pub mod readiness;
pub mod secrets;
pub mod self_test;
pub mod served;
pub mod telemetry;
pub mod throttling;
pub mod trace;
