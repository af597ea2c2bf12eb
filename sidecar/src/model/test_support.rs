//! What the tests of this module share: a contract of the tiny model, and its files.

use std::{num::NonZeroU32, time::Duration};

use embark_crds::contract::{
    Artifact, Batching, CacheMode, CachePolicy, CacheStorage, Channels, Contract, DefaultVector,
    ImageDtype, ImageInput, Input, Layout, Location, Normalization, OnMiss, Output, Overlong,
    Pooling, Resize, ServingConfig, Sha256, TextInput,
};
use sha2::Digest;

pub(crate) const TINY_MODEL: &[u8] =
    include_bytes!("../../../examples/models/tiny-static-minilm/model.onnx");
pub(crate) const TINY_TOKENIZER: &[u8] =
    include_bytes!("../../../examples/models/tiny-static-minilm/tokenizer.json");

pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

pub(crate) fn artifact(location: Location, bytes: &[u8]) -> Artifact {
    Artifact { location, sha256: sha256(bytes), has_secret: false, has_ca_bundle: false }
}

pub(crate) fn builtin(name: &str, bytes: &[u8]) -> Artifact {
    artifact(Location::Builtin { path: format!("tiny-static-minilm/{name}") }, bytes)
}

/// A model of images, of these sizes, that takes pixels as they are.
pub(crate) fn images(width: u32, height: u32) -> ImageInput {
    ImageInput {
        width,
        height,
        resize: Resize::Stretch,
        layout: Layout::Nhwc,
        channels: Channels::Rgb,
        dtype: ImageDtype::Uint8,
        mean: vec![],
        std: vec![],
        size_limit: 10 << 20,
        max_pixels: 50_000_000,
        urls: None,
    }
}

/// The contract of the tiny model, every default filled in.
pub(crate) fn tiny() -> Contract {
    let input = Input::Text(TextInput {
        tokenizer: builtin("tokenizer.json", TINY_TOKENIZER),
        prompts: Vec::new(),
        default_prompt: None,
        max_tokens: 256,
        size_limit: 256 * 1024,
        overlong: Overlong::Truncate,
        pooling: Pooling::None,
    });
    let serving = ServingConfig {
        version: 1,
        name: "tiny".to_owned(),
        model: builtin("model.onnx", TINY_MODEL),
        artifact_size_limit: 2 << 30,
        output: output(128),
        input,
        cache: CacheStorage {
            mode: CacheMode::MemoryAndDisk,
            memory_bytes: 128 << 20,
            disk_bytes: 2 << 30,
        },
        batching: Batching {
            max_items: 32,
            max_tokens: 4096,
            max_duration: Duration::from_millis(50),
            max_delay: Duration::ZERO,
            queue_max_items: 4096,
            queue_max_tokens: 262_144,
        },
        self_test: Vec::new(),
        endpoint: None,
    };
    Contract { serving, policy: policy() }
}

pub(crate) fn output(dimensions: u32) -> Output {
    let dimensions = NonZeroU32::new(dimensions).expect("a test's dimensions are not 0");
    let normalization = Normalization::L2;
    Output { name: None, dimensions, default_dimensions: dimensions, normalization }
}

pub(crate) fn text(serving: &mut ServingConfig) -> &mut TextInput {
    match &mut serving.input {
        Input::Text(text) => text,
        other => panic!("not a text model: {other:?}"),
    }
}

/// The policy that stands when a manifest says nothing of it.
pub(crate) fn policy() -> CachePolicy {
    CachePolicy {
        version: 1,
        ttl: Duration::from_secs(86_400),
        ttl_jitter_percent: 10,
        stale_while_revalidate: Duration::ZERO,
        negative_ttl: Duration::ZERO,
        on_miss: OnMiss::Wait,
        wait_budget: None,
        default_vector: DefaultVector::Zero,
        epoch: 0,
        allow_invalidation: false,
    }
}
