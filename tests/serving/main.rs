//! The sidecar as its users have it: a process of its own, asked over gRPC, with real models.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which panic")]

mod cache;
mod drain;
mod errors;
mod goldens;
mod identity;
mod interop;
mod invalidation;
mod loading;
mod surface;
