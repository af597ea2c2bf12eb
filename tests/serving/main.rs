//! The sidecar as its users have it: a process of its own, asked over gRPC, with real models.

#![cfg(test)]

mod admin;
mod bad_manifests;
mod bad_models;
mod bench;
mod cache;
mod check;
mod cli;
mod connections;
mod deadlines;
mod drain;
mod errors;
mod flights;
mod forgetting;
mod ghz;
mod goldens;
mod identity;
mod interop;
mod invalidation;
mod kills;
mod loading;
mod mean;
mod misses;
mod mounted;
mod peers;
mod policy;
mod secure;
mod soak;
mod sockets;
mod sources;
mod store_faults;
mod streams;
mod surface;
mod tensors;
mod tokens;
mod traces;
