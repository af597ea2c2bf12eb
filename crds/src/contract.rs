//! What a resolved EmbeddingModel is: the face between the operator, which writes it, and the sidecar, which reads it.
//!
//! Everything here is resolved: no field is an `Option` that means a default, no size is text. It knows nothing of
//! Kubernetes. Two parts change at different costs: [`ServingConfig`] rolls the pods, [`CachePolicy`] is reloaded live.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

mod artifact;
mod batching;
mod cache;
mod duration;
pub mod files;
mod input;
pub mod report;
mod self_test;

pub use artifact::{Artifact, Location, NotSha256, Sha256};
pub use batching::{Batching, cost};
pub use cache::{CacheMode, CachePolicy, CacheStorage, DefaultVector, OnMiss};
pub use input::{
    CategoricalInput, Channels, ImageDtype, ImageInput, ImageUrls, Input, Layout, Overlong,
    Pooling, Prompt, Resize, TensorDtype, TensorInput, TextInput,
};
pub use self_test::{SelfTest, SelfTestExpected, SelfTestInput};

/// The contract's version. A sidecar takes the newest that it reads; the operator writes this one and the one before.
pub const VERSION: u32 = 1;

/// The port of the gRPC API.
pub const GRPC_PORT: u16 = 8081;
/// The port of probes, metrics and status.
pub const ADMIN_PORT: u16 = 8082;
/// The port of the HTTP edge.
pub const HTTP_PORT: u16 = 8080;
/// The port of the gRPC API in an application's own pod, on its loopback address: one that no application is likely to have.
pub const INJECTED_GRPC_PORT: u16 = 24181;
/// The port of probes, metrics and status there, on every address: the kubelet probes it.
pub const INJECTED_ADMIN_PORT: u16 = 24182;

/// The most bytes that one reply may hold, so that a client with gRPC's default limit of 4 MiB can read it.
const REPLY_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// The most items of one request, whatever their size.
pub const MAX_REQUEST_ITEMS: usize = 1024;
/// The most bytes of one request's message, unless one item needs more.
pub const LEAST_MAX_REQUEST_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes that an item's result may take beside its vector.
const RESULT_OVERHEAD_BYTES: usize = 512;

/// A model as the sidecar serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contract {
    /// What decides the pods: a change of it rolls them.
    pub serving: ServingConfig,
    /// What is reloaded live.
    pub policy: CachePolicy,
}

/// The part of the contract that is fixed for the life of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServingConfig {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The EmbeddingModel's name.
    pub name: String,
    /// The ONNX file.
    pub model: Artifact,
    /// The most bytes that any one artifact of the model may have.
    pub artifact_size_limit: u64,
    /// Which vector the model gives.
    pub output: Output,
    /// What goes in.
    pub input: Input,
    /// Where vectors are kept.
    pub cache: CacheStorage,
    /// How rows are merged into runs.
    pub batching: Batching,
    /// Checks that gate readiness.
    pub self_test: Vec<SelfTest>,
    /// How the gRPC port is secured; `None`: plain text.
    pub endpoint: Option<Endpoint>,
}

/// What a model's output tensor is, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The output's name; `None`: the one float output whose last dimension is fixed.
    pub name: Option<String>,
    /// The length of a full vector; the model is checked against it.
    pub dimensions: NonZeroU32,
    /// The length of the vectors that callers get unless they ask otherwise; at most `dimensions`.
    pub default_dimensions: NonZeroU32,
    /// What is done to the vector after pooling, and again after it is cut.
    pub normalization: Normalization,
}

/// What is done to a vector before it is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Normalization {
    /// Divided by its Euclidean length.
    L2,
    /// Nothing.
    None,
}

/// How the gRPC port is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// A certificate and key are mounted.
    pub tls: bool,
    /// Clients must show a certificate.
    pub client_ca: bool,
    /// Clients must show a bearer token.
    pub token: bool,
}

// === impl ServingConfig ===

impl ServingConfig {
    /// The most items of one request: at most 1024, and no more than keep a reply under a client's default 4 MiB.
    pub fn max_request_items(&self) -> u32 {
        let result = self.output.dimensions.get() as usize * 4 + RESULT_OVERHEAD_BYTES;
        u32::try_from((REPLY_BYTES / result).clamp(1, MAX_REQUEST_ITEMS)).unwrap_or(1)
    }

    /// The most bytes of one item.
    pub fn max_item_bytes(&self) -> u64 {
        match &self.input {
            Input::Text(text) => text.size_limit,
            Input::Image(image) => image.size_limit,
            Input::Tensor(tensor) => {
                tensor.shape.iter().map(|&n| u64::from(n)).product::<u64>() * tensor.dtype.size()
            }
            Input::Categorical(_) => 1024,
        }
    }

    /// Every artifact of the model, with its field in a spec.
    pub fn artifacts(&self) -> impl Iterator<Item = (&'static str, &Artifact)> {
        let of_input = match &self.input {
            Input::Text(text) => Some(("spec.input.text.tokenizer", &text.tokenizer)),
            Input::Categorical(categorical) => {
                Some(("spec.input.categorical.vocabulary", &categorical.vocabulary))
            }
            Input::Image(_) | Input::Tensor(_) => None,
        };
        [("spec.model.source", &self.model)].into_iter().chain(of_input)
    }

    /// The most bytes of one request's message: 32 MiB, or what one largest item needs.
    pub fn max_request_bytes(&self) -> u64 {
        LEAST_MAX_REQUEST_BYTES.max(self.max_item_bytes() + 64 * 1024)
    }
}
