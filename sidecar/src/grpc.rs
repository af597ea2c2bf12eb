//! The wire: gRPC messages to domain values and back. Nothing outside of it knows protobuf.

mod bounds;
mod cache_service;
pub mod client;
pub mod codec;
mod convert;
mod embedding_service;
pub mod health;
mod incoming;
pub mod server;
pub mod status;
mod validate;
