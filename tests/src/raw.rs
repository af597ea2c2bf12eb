//! Calls whose bytes no client of the API would send.

use std::marker::PhantomData;

use embark_sidecar::pb::client::EmbedResponse;
use prost::{Message, bytes::BufMut as _};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};

use crate::Sidecar;

/// Sends bytes as they are, and reads a message.
struct RawCodec<T>(PhantomData<T>);

struct RawEncoder;

struct MessageDecoder<T>(PhantomData<T>);

// === impl RawCodec ===

impl<T: Message + Default + 'static> Codec for RawCodec<T> {
    type Encode = Vec<u8>;
    type Decode = T;
    type Encoder = RawEncoder;
    type Decoder = MessageDecoder<T>;

    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }

    fn decoder(&mut self) -> MessageDecoder<T> {
        MessageDecoder(PhantomData)
    }
}

// === impl RawEncoder ===

impl Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, frame: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.put_slice(&bytes);
        Ok(())
    }
}

// === impl MessageDecoder ===

impl<T: Message + Default> Decoder for MessageDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(frame).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

// === free functions ===

/// Calls Embed with a message of these bytes.
///
/// # Errors
/// What the sidecar answers.
pub async fn embed(sidecar: &Sidecar, message: Vec<u8>) -> Result<EmbedResponse, Status> {
    let mut client = Grpc::new(sidecar.channel().await);
    client.ready().await.expect("the connection stands");
    let path = PathAndQuery::from_static("/embark.v1.EmbeddingService/Embed");
    let codec = RawCodec::<EmbedResponse>(PhantomData);
    Ok(client.unary(Request::new(message), path, codec).await?.into_inner())
}
