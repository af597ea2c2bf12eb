//! Generated protobuf code, and the descriptor that reflection serves. Named under `grpc` alone.
//!
//! The server's messages come from a patched descriptor: vectors and texts are bytes, which look the same on the wire as
//! packed floats and strings. The client's messages are the public ones.

#[expect(missing_docs, reason = "generated: the .proto documents it")]
#[expect(
    clippy::allow_attributes_without_reason,
    clippy::too_many_arguments,
    reason = "generated"
)]
#[rustfmt::skip]
pub mod client;
#[expect(missing_docs, reason = "generated: the .proto documents it")]
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "generated"
)]
#[rustfmt::skip]
pub mod server;

/// The encoded `FileDescriptorSet` of the public API.
pub const DESCRIPTOR: &[u8] = include_bytes!("pb/descriptor.bin");
