//! The codec of the server's messages. It differs from tonic's in three ways: a reply's buffer is reserved at its full
//! length before it is written, so that large batches of vectors are not moved while it grows; a message that does
//! not decode is the caller's fault, INVALID_ARGUMENT with the field's name, where tonic says INTERNAL;
//! and one that would take far more memory than bytes is refused before it is decoded.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    bounds::{self, Bounded},
    status,
};
use crate::error::{Error, ErrorKind};

/// Encodes `T` and decodes `U`.
#[derive(Clone, Copy, Debug)]
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

/// Writes a message into a frame.
#[derive(Clone, Copy, Debug)]
pub struct MessageEncoder<T>(PhantomData<T>);

/// Reads a message from a frame.
#[derive(Clone, Copy, Debug)]
pub struct MessageDecoder<U>(PhantomData<U>);

// === impl MessageCodec ===

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        MessageCodec(PhantomData)
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Bounded + Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

// === impl MessageEncoder ===

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, frame: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = message.encoded_len();
        frame.reserve(length);
        if frame.remaining_mut() < length {
            return Err(Status::internal("the reply is larger than a frame can be"));
        }
        message.encode(frame).map_err(|error| Status::internal(error.to_string()))
    }
}

// === impl MessageDecoder ===

impl<U: Bounded + Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // One shared buffer for the whole message, so that its bytes fields are slices of it and not copies.
        let message = frame.copy_to_bytes(frame.remaining());
        self::decode(message).map(Some).map_err(|error| status::of(&error))
    }
}

// === free functions ===

/// The message that bytes are.
///
/// # Errors
/// They are none, or repeat a field more often than it may be.
pub(super) fn decode<U: Bounded + Message + Default>(message: Bytes) -> Result<U, Error> {
    bounds::check::<U>(&message)?;
    U::decode(message).map_err(|error| {
        let sentence = format!("the request is malformed: {error}");
        Error::new(ErrorKind::Malformed, sentence)
    })
}
