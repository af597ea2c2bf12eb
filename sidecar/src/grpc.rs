//! The wire: gRPC messages to domain values and back. Nothing outside of it knows protobuf.

mod auth;
mod bounds;
mod cache_service;
pub mod client;
pub mod codec;
mod convert;
mod deadline;
mod embedding_service;
mod embeddings;
mod ending;
pub(crate) mod fuzzing;
pub mod health;
mod in_flight;
pub mod server;
pub mod status;
mod stream;
mod validate;
