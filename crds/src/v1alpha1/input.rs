//! What goes into a model: text, images, tensors or categories.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    choice::{Channels, ImageDtype, Layout, Overlong, Pooling, Resize, TensorDtype},
    model::Artifact,
    scalar::{DurationText, Quantity},
};
use crate::defaults;

/// What goes in: exactly one of text, image, tensor and categorical.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextInput>,
    /// PNG, JPEG, WebP or GIF images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInput>,
    /// Tensors of a fixed shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<TensorInput>,
    /// Ids of a vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categorical: Option<CategoricalInput>,
}

/// How text becomes tokens, and the vectors of tokens one vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextInput {
    /// The model's tokenizer.json, as Hugging Face tokenizers writes it.
    pub tokenizer: Artifact,
    /// Texts that are put before an input, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub prompts: Vec<Prompt>,
    /// The name of the prompt for requests that name none. Absent: none is put before their inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub default_prompt: Option<String>,
    /// The most tokens that the model reads of a text, special ones included.
    #[serde(default = "defaults::max_tokens")]
    #[schemars(range(min = 1, max = 32768))]
    pub max_tokens: u32,
    /// The most bytes of one text; from 1 to 16Mi.
    #[serde(default = "defaults::text_size_limit")]
    pub size_limit: Quantity,
    /// What is done with a text of more than maxTokens: Truncate reads its beginning and says so, Reject refuses it, Chunk reads it in windows and averages their vectors.
    #[serde(default)]
    pub overlong: Overlong,
    /// How the vectors of tokens become one. None: the model does it itself.
    #[serde(default)]
    pub pooling: Pooling,
}

/// A text that is put before an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    /// What requests call it.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$")
    )]
    pub name: String,
    /// What is put before the text.
    #[schemars(length(max = 2048))]
    pub prefix: String,
}

/// How an image becomes a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageInput {
    /// Pixels across, as the model has them.
    #[schemars(range(min = 1, max = 4096))]
    pub width: u32,
    /// Pixels down, as the model has them.
    #[schemars(range(min = 1, max = 4096))]
    pub height: u32,
    /// How an image of another size becomes this one: Stretch scales each axis by itself, FitCrop scales until the shorter side fits and cuts around the middle.
    #[serde(default)]
    pub resize: Resize,
    /// The order of the tensor's axes.
    #[serde(default)]
    pub layout: Layout,
    /// The order of the colours.
    #[serde(default)]
    pub channels: Channels,
    /// The tensor's element type: Uint8 goes from 0 to 255, Float32 from 0 to 1 before mean and std.
    #[serde(default)]
    pub dtype: ImageDtype,
    /// Subtracted from the channels, in units of 0 to 1: one number for all, or one for each in the order of channels. Empty: nothing is.
    #[serde(default)]
    #[schemars(length(max = 3), inner(range(min = -1000.0, max = 1000.0)))]
    pub mean: Vec<f64>,
    /// What the channels are divided by after mean: one number for all, or one for each in the order of channels. Empty: nothing.
    #[serde(default)]
    #[schemars(length(max = 3), inner(range(min = -1000.0, max = 1000.0)))]
    pub std: Vec<f64>,
    /// The most bytes of one image file; from 1 to 256Mi.
    #[serde(default = "defaults::image_size_limit")]
    pub size_limit: Quantity,
    /// The most pixels that an image may have once decoded.
    #[serde(default = "defaults::max_pixels")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_pixels: u64,
    /// Which URLs callers may give in place of an image. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<ImageUrls>,
}

/// Which image URLs are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageUrls {
    /// Host names that images are fetched from, at ports 80 and 443 unless one is written, as in example.com:8080; *.example.com stands for every name below example.com.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 259),
            regex(
                pattern = r"^(\*\.)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$"
            )
        )
    )]
    pub allowed_hosts: Vec<String>,
    /// Ranges of private addresses that may be connected to. All others that are not public are refused.
    #[serde(default, rename = "allowedCIDRs")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub allowed_cidrs: Vec<String>,
    /// The time that one fetch may take; at most 60s.
    #[serde(default = "defaults::url_timeout")]
    pub timeout: DurationText,
}

/// A tensor of a fixed shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TensorInput {
    /// The shape of one item, without the batch axis; at most 4194304 elements in all.
    #[schemars(length(min = 1, max = 6), inner(range(min = 1, max = 4_194_304)))]
    pub shape: Vec<u32>,
    /// The element type.
    #[serde(default)]
    pub dtype: TensorDtype,
}

/// Ids of a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CategoricalInput {
    /// A text file with one id on each line. The id on line n, counted from 1, is row n of the model; any other id is row 0, and the result says so.
    pub vocabulary: Artifact,
}
