//! What a resolved EmbeddingModel is: the face between the operator, which writes it, and the sidecar, which reads it.
//!
//! Everything here is resolved: no field is an `Option` that means a default, no size is text. It knows nothing of
//! Kubernetes. Two parts change at different costs: [`ServingConfig`] rolls the pods, [`CachePolicy`] is reloaded live.

use std::{fmt, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

/// The contract's version. A sidecar takes the newest that it reads; the operator writes this one and the one before.
pub const VERSION: u32 = 1;

/// The port of the gRPC API.
pub const GRPC_PORT: u16 = 8081;
/// The port of probes, metrics and status.
pub const ADMIN_PORT: u16 = 8082;
/// The port of the HTTP edge.
pub const HTTP_PORT: u16 = 8080;

/// The most bytes that one reply may hold, so that a client with gRPC's default limit of 4 MiB can read it.
const REPLY_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// The most items of one request, whatever their size.
const MAX_REQUEST_ITEMS: usize = 1024;
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

/// A file that is pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where it is.
    pub location: Location,
    /// What it must be.
    pub sha256: Sha256,
    /// Whether credentials are mounted for it.
    pub has_secret: bool,
    /// Whether a CA bundle is mounted for it.
    pub has_ca_bundle: bool,
}

/// Where an artifact is, parsed from its URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "scheme")]
pub enum Location {
    /// `builtin://model/file`: compiled into the sidecar.
    Builtin {
        /// `model/file`.
        path: String,
    },
    /// `file://path`: absolute, or relative to the manifest.
    File {
        /// The path as written.
        path: String,
    },
    /// `http://` or `https://`.
    Http {
        /// The whole URL.
        url: String,
    },
    /// `s3://`, `gs://` or `az://`.
    ObjectStore {
        /// The whole URL.
        url: String,
    },
    /// `oci://repository@sha256:…`, and the layer's title.
    Oci {
        /// `repository@sha256:…`.
        reference: String,
        /// The title of the layer.
        title: String,
    },
    /// `hf://org/repo@revision/file`.
    Hf {
        /// `org/repo`.
        repository: String,
        /// A pinned revision.
        revision: String,
        /// The file's path in the repository.
        file: String,
    },
    /// `pvc://claim/path`.
    Pvc {
        /// The PersistentVolumeClaim's name.
        claim: String,
        /// The path in the volume.
        path: String,
    },
}

impl Location {
    /// The URI's scheme as a user writes it, for messages.
    pub fn scheme(&self) -> &str {
        match self {
            Location::Builtin { .. } => "builtin",
            Location::File { .. } => "file",
            Location::Http { url } | Location::ObjectStore { url } => {
                url.split_once("://").map_or("", |(scheme, _)| scheme)
            }
            Location::Oci { .. } => "oci",
            Location::Hf { .. } => "hf",
            Location::Pvc { .. } => "pvc",
        }
    }
}

/// A SHA-256 digest; as text 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

/// The text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hex digits")]
pub struct NotSha256;

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
    /// Exact names, or `*.suffix`.
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

/// Where vectors are kept, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheStorage {
    /// Which tiers there are.
    pub mode: CacheMode,
    /// Bytes of the memory tier.
    pub memory_bytes: u64,
    /// Bytes of every file of the disk tier.
    pub disk_bytes: u64,
}

/// Which cache tiers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheMode {
    /// None.
    Disabled,
    /// Memory alone.
    Memory,
    /// Memory over disk.
    MemoryAndDisk,
}

/// How rows are merged into runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batching {
    /// The most rows of a run.
    pub max_items: u32,
    /// The most cost of a run, see [`cost`].
    pub max_tokens: u32,
    /// The most time that a run is predicted to take.
    #[serde(with = "milliseconds")]
    pub max_duration: Duration,
    /// How long a run waits for more rows.
    #[serde(with = "milliseconds")]
    pub max_delay: Duration,
    /// The most rows that wait.
    pub queue_max_items: u32,
    /// The most cost that waits.
    pub queue_max_tokens: u32,
}

/// One check that gates readiness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// What is embedded.
    pub input: SelfTestInput,
    /// What it must be near to.
    pub expected: SelfTestExpected,
    /// The least cosine between the two.
    pub min_cosine: f64,
}

/// The input of a self-test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SelfTestInput {
    /// For a text model.
    Text(String),
    /// For a categorical model.
    Category(String),
    /// For a tensor model: row-major values.
    Tensor(Vec<f64>),
}

/// What the vector of a self-test is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SelfTestExpected {
    /// A vector of the model's dimensions.
    Vector(Vec<f32>),
    /// The vector of another input.
    SimilarTo(SelfTestInput),
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

/// The part of the contract that is reloaded live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachePolicy {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// How long an entry is fresh, from the start of its computation.
    #[serde(with = "milliseconds")]
    pub ttl: Duration,
    /// How much of `ttl` an entry may lose, by its key; 0 to 100.
    pub ttl_jitter_percent: u8,
    /// How long past its `ttl` an entry may be given out while it is computed anew.
    #[serde(with = "milliseconds")]
    pub stale_while_revalidate: Duration,
    /// How long an input that failed for good stays failed.
    #[serde(with = "milliseconds")]
    pub negative_ttl: Duration,
    /// What a caller gets for an input that is not cached.
    pub on_miss: OnMiss,
    /// With [`OnMiss::Wait`], how long it waits before the default vector is given; `None`: until its deadline.
    #[serde(with = "optional_milliseconds")]
    pub wait_budget: Option<Duration>,
    /// The vector that stands for one that is not there.
    pub default_vector: DefaultVector,
    /// Entries of any other epoch do not count.
    pub epoch: u64,
    /// Whether callers of the data port may invalidate.
    pub allow_invalidation: bool,
}

/// What a caller gets for an input that is not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnMiss {
    /// Its vector, once computed.
    Wait,
    /// The default vector; the input is computed behind.
    ReturnDefault,
    /// NOT_FOUND.
    Fail,
}

/// The vector that stands for one that is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DefaultVector {
    /// All zeros.
    Zero,
    /// These values, as many as the model's dimensions.
    Values(Vec<f32>),
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

    /// The most bytes of one request's message: 32 MiB, or what one largest item needs.
    pub fn max_request_bytes(&self) -> u64 {
        (32 * 1024 * 1024).max(self.max_item_bytes() + 64 * 1024)
    }
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

// === impl Sha256 ===

impl Sha256 {
    /// Reads 64 hex digits of either case.
    ///
    /// # Errors
    /// [`NotSha256`] for any other text.
    pub fn parse(text: &str) -> Result<Self, NotSha256> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotSha256)?;
        Ok(Sha256(*hash.as_bytes()))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NotSha256;
    fn try_from(text: String) -> Result<Self, NotSha256> {
        Sha256::parse(&text)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.to_string()
    }
}

// === free functions ===

/// The cost of a run of `rows` rows that are padded to `longest` tokens: attention makes it grow faster than the tokens.
/// In tokens of a short row; an image, a tensor or a category costs 1.
pub fn cost(rows: u64, longest: u64) -> u64 {
    rows * (longest + longest * longest / 512)
}

mod milliseconds {
    use super::{Deserialize, Duration};

    pub(super) fn serialize<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        d: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}

mod optional_milliseconds {
    use super::{Deserialize, Duration, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        d: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        d.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).serialize(s)
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.map(Duration::from_millis))
    }
}
