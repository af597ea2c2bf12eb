//! The sidecar as its users have it: a process of its own, asked over gRPC, with real models.

mod cache;
