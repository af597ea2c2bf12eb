//! What users write: the EmbeddingModel of `embark.dev/v1alpha1`, raw and in Kubernetes' terms.
//!
//! The doc comments here are the descriptions that `kubectl explain` shows. What fields mean together stands in
//! [`rules`](crate::rules), what they become in [`contract`](crate::contract).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod cache;
mod choice;
mod input;
mod model;
mod pod;
mod scalar;
mod serving;
mod status;

pub use cache::{Cache, DefaultVector, DefaultVectorType, DiskTier, MemoryTier};
pub use choice::{
    CacheMode, Channels, ImageDtype, Layout, Normalization, OnMiss, Overlong, Pooling, Resize,
    TensorDtype,
};
pub use input::{CategoricalInput, ImageInput, ImageUrls, Input, Prompt, TensorInput, TextInput};
pub use model::{Artifact, ConfigMapKeyReference, Model, Output, SecretReference};
pub use pod::Pod;
pub(crate) use scalar::{DURATION_PATTERN, QUANTITY_PATTERN};
pub use scalar::{DurationText, Quantity};
pub use serving::{
    Autoscaling, Batching, DisruptionBudget, Endpoint, NetworkPolicy, Queue, SelfTest,
    SelfTestInput, Tls, TokenReference,
};
pub use status::{CacheStatus, EmbeddingModelStatus, PolicyStatus};

use crate::defaults;

/// The API group.
pub const GROUP: &str = "embark.dev";
/// Group and version, as manifests name them.
pub const API_VERSION: &str = "embark.dev/v1alpha1";
/// The kind.
pub const KIND: &str = "EmbeddingModel";

/// A model that is served in the cluster: what it is, what goes in, and what is remembered of its vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "embark.dev",
        version = "v1alpha1",
        kind = "EmbeddingModel",
        plural = "embeddingmodels",
        shortname = "embm",
        category = "embark",
        namespaced,
        status = "EmbeddingModelStatus",
        derive = "PartialEq",
        doc = "A model that turns inputs into embeddings, served from CPUs, and the policy of its cache.",
        scale(
            spec_replicas_path = ".spec.replicas",
            status_replicas_path = ".status.replicas",
            label_selector_path = ".status.selector"
        ),
        printcolumn = r#"{"name":"READY", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].status", "description":"Whether the model is served as its spec says"}"#,
        printcolumn = r#"{"name":"REPLICAS", "type":"integer", "jsonPath":".status.replicas", "description":"Pods that there are"}"#,
        printcolumn = r#"{"name":"DIM", "type":"integer", "jsonPath":".spec.model.output.dimensions", "description":"The length of the model's vectors"}"#,
        printcolumn = r#"{"name":"HIT%", "type":"integer", "jsonPath":".status.cache.hitPercent", "description":"Items that were remembered in the last five minutes, in percent"}"#,
        printcolumn = r#"{"name":"ADDRESS", "type":"string", "jsonPath":".status.address", "description":"Where callers reach the model"}"#,
        printcolumn = r#"{"name":"AGE", "type":"date", "jsonPath":".metadata.creationTimestamp", "description":"How long ago the EmbeddingModel was created"}"#,
        printcolumn = r#"{"name":"DIGEST", "type":"string", "jsonPath":".status.modelDigest", "description":"The SHA-256 digest of the model", "priority":1}"#,
        printcolumn = r#"{"name":"SPACE", "type":"string", "jsonPath":".status.spaceID", "description":"The space that the model's vectors lie in", "priority":1}"#
    )
)]
pub struct EmbeddingModelSpec {
    /// Pods that serve the model. It is ignored while autoscaling is set.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How many pods there are as load comes and goes. Absent: always as many as replicas says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Which model is served.
    pub model: Model,
    /// What goes in: exactly one of text, image, tensor and categorical.
    pub input: Input,
    /// What is remembered, and for how long. mode, memory and disk roll the pods when they change; every other field is taken over by running pods.
    #[serde(default)]
    pub cache: Cache,
    /// How rows are merged into runs. The cost of a run is rows * longest * (1 + longest / 512) for text, where longest is its longest row in tokens; an image, a tensor or a category costs 1.
    #[serde(default)]
    pub batching: Batching,
    /// Checks that must hold before the model is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub self_test: Vec<SelfTest>,
    /// How the gRPC port is secured. Absent: plain text, open to every caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Who may reach the pods' HTTP and gRPC ports. Absent: no NetworkPolicy is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
    /// How many pods may be taken away at once by someone's choice, as when nodes are drained.
    #[serde(default)]
    pub disruption_budget: DisruptionBudget,
    /// What is passed on to the model's pods.
    #[serde(default)]
    pub pod: Pod,
}

/// The part of an object's metadata that a manifest read without Kubernetes keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The model's name.
    pub name: String,
    /// Its namespace, if the manifest says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

// === impl EmbeddingModelSpec ===

impl EmbeddingModelSpec {
    /// Every file that it names, with its field.
    pub fn artifacts(&self) -> impl Iterator<Item = (&'static str, &Artifact)> {
        let text = self.input.text.as_ref().map(|text| &text.tokenizer);
        let categorical = self.input.categorical.as_ref().map(|input| &input.vocabulary);
        let of_input = [
            text.map(|tokenizer| ("spec.input.text.tokenizer", tokenizer)),
            categorical.map(|vocabulary| ("spec.input.categorical.vocabulary", vocabulary)),
        ];
        [("spec.model.source", &self.model.source)]
            .into_iter()
            .chain(of_input.into_iter().flatten())
    }
}
