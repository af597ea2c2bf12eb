//! What goes into a model, and how it becomes tensors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{artifact::Artifact, duration::milliseconds};

/// What goes into a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// UTF-8 text.
    Text(TextInput),
    /// An image file or its URL.
    Image(ImageInput),
    /// A tensor.
    Tensor(TensorInput),
    /// An id of a vocabulary.
    Categorical(CategoricalInput),
}

/// How text becomes token ids, and token vectors one vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TextInput {
    /// A Hugging Face `tokenizer.json`.
    pub tokenizer: Artifact,
    /// Prefixes by name, in the order of the spec.
    pub prompts: Vec<Prompt>,
    /// The name of the prompt that stands when a request names none.
    pub default_prompt: Option<String>,
    /// The most tokens of a row, special ones included.
    pub max_tokens: u32,
    /// The most bytes of one text.
    pub size_limit: u64,
    /// What is done with a text of more than `max_tokens`.
    pub overlong: Overlong,
    /// How the vectors of tokens become one.
    pub pooling: Pooling,
}

/// A text put before an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    /// What requests call it.
    pub name: String,
    /// What is put before the text.
    pub prefix: String,
}

/// What is done with a text of too many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlong {
    /// Its first tokens are read; the result says so.
    Truncate,
    /// It is refused.
    Reject,
    /// It is read in windows whose vectors are averaged.
    Chunk,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// The model does it: its output has one vector a row.
    None,
    /// The mean over the row's tokens.
    Mean,
    /// The first token's.
    #[serde(rename = "CLS")]
    Cls,
    /// The last token's.
    LastToken,
}

/// How an image becomes a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageInput {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How any other size becomes this one.
    pub resize: Resize,
    /// The order of the tensor's axes.
    pub layout: Layout,
    /// The order of the colours.
    pub channels: Channels,
    /// The tensor's element type.
    pub dtype: ImageDtype,
    /// Subtracted from each channel, in units of 0..=1; empty: nothing.
    pub mean: Vec<f64>,
    /// Divides each channel after `mean`; empty: nothing.
    pub std: Vec<f64>,
    /// The most bytes of one image file.
    pub size_limit: u64,
    /// The most pixels of one image.
    pub max_pixels: u64,
    /// Which URLs are fetched; `None`: none is.
    pub urls: Option<ImageUrls>,
}

/// How an image of another size becomes the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resize {
    /// Each axis by itself.
    Stretch,
    /// Scaled until the shorter side fits, then cut around the middle.
    FitCrop,
}

/// The order of an image tensor's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Batch, height, width, channel.
    #[serde(rename = "NHWC")]
    Nhwc,
    /// Batch, channel, height, width.
    #[serde(rename = "NCHW")]
    Nchw,
}

/// The order of an image's colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// Red, green, blue.
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red.
    #[serde(rename = "BGR")]
    Bgr,
}

/// The element type of an image tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageDtype {
    /// 0 to 255.
    Uint8,
    /// 0 to 1 before mean and std.
    Float32,
}

/// Which image URLs are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageUrls {
    /// Exact names, or `*.suffix`; either with `:port`, without which ports 80 and 443 are meant.
    pub allowed_hosts: Vec<String>,
    /// Private ranges that may be connected to.
    pub allowed_cidrs: Vec<String>,
    /// The time that one fetch may take.
    #[serde(with = "milliseconds")]
    pub timeout: Duration,
}

/// A tensor input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorInput {
    /// The shape of one item, without the batch axis.
    pub shape: Vec<u32>,
    /// Its element type.
    pub dtype: TensorDtype,
}

/// The element type of a tensor input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are their meaning")]
pub enum TensorDtype {
    Float32,
    Float64,
    Int32,
    Int64,
    Uint8,
    Int8,
    Bool,
}

/// A categorical input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CategoricalInput {
    /// One id a line; the line's number from 1 is its row, row 0 is for ids that are not in it.
    pub vocabulary: Artifact,
}

// === impl TensorDtype ===

impl TensorDtype {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            TensorDtype::Float64 | TensorDtype::Int64 => 8,
            TensorDtype::Float32 | TensorDtype::Int32 => 4,
            TensorDtype::Uint8 | TensorDtype::Int8 | TensorDtype::Bool => 1,
        }
    }
}
