//! How a model is served: how many pods, how rows are merged into runs, who may call.

use k8s_openapi::{
    api::{
        autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec},
        networking::v1::NetworkPolicyPeer,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{model::ConfigMapKeyReference, scalar::DurationText};
use crate::defaults;

/// How many pods there are as load comes and goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// The fewest pods.
    #[serde(default = "defaults::min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// The most pods; at least minReplicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// The share of the CPU that the sidecar requests, in percent, that pods are kept at.
    #[serde(
        default = "defaults::target_cpu_utilization_percentage",
        rename = "targetCPUUtilizationPercentage"
    )]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization_percentage: i32,
    /// Metrics of autoscaling/v2. If there are any, they replace the CPU target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics: Vec<MetricSpec>,
    /// How fast the number of pods changes. Absent: up by one pod a minute; down after 600 seconds, because new pods start with an empty cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// How rows are merged into runs. The cost of a run is rows × longest × (1 + longest / 512) for text, where longest is its longest row in tokens; an image, a tensor or a category costs 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batching {
    /// The most rows of a run.
    #[serde(default = "defaults::batch_max_items")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_items: u32,
    /// The most cost of a run; at least the cost of one row of maxTokens of spec.input.text.
    #[serde(default = "defaults::batch_max_tokens")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_tokens: u32,
    /// The time that a run is planned to take at most; above 0s, at most 60s.
    #[serde(default = "defaults::max_duration")]
    pub max_duration: DurationText,
    /// How long a run waits for more rows while a worker is free; below maxDuration.
    #[serde(default = "defaults::max_delay")]
    pub max_delay: DurationText,
    /// What waits for a run. Past these bounds callers are turned away.
    #[serde(default)]
    pub queue: Queue,
}

/// What may wait for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// The most rows; at least the maxItems of a run.
    #[serde(default = "defaults::queue_max_items")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_items: u32,
    /// The most cost; at least the maxTokens of a run.
    #[serde(default = "defaults::queue_max_tokens")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_tokens: u32,
}

/// A check that must hold before the model is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// What is embedded.
    pub input: SelfTestInput,
    /// The vector that it must be near to, as long as the model has dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384), inner(range(min = -1e15, max = 1e15)))]
    pub vector: Option<Vec<f64>>,
    /// An input whose vector it must be near to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similar_to: Option<SelfTestInput>,
    /// The least cosine between the two, from "-1" to "1", such as "0.80".
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^-?(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub min_cosine: String,
}

/// The input of a check: exactly one of text, category and tensor, as the model takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelfTestInput {
    /// A text, for a model that takes text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub text: Option<String>,
    /// An id, for a model that takes categories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub category: Option<String>,
    /// Values in row-major order, for a model that takes tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384), inner(range(min = -1e15, max = 1e15)))]
    pub tensor: Option<Vec<f64>>,
}

/// How the gRPC port is secured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// A key of a Secret whose value callers must send as bearer token. Absent: no token is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<TokenReference>,
}

/// The certificate that the gRPC port shows, and the one that callers must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The name of a Secret of type kubernetes.io/tls.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// A ConfigMap with the certificates of the authorities that callers' certificates are checked by, in PEM. Absent: callers show none.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "clientCARef")]
    pub client_ca_ref: Option<ConfigMapKeyReference>,
}

/// A key of a Secret in the namespace of the EmbeddingModel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key whose value is taken.
    #[serde(default = "defaults::token_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Who may reach the pods' HTTP and gRPC ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// The peers that may. Empty: nobody.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub from: Vec<NetworkPolicyPeer>,
}

/// How many pods may be taken away at once by someone's choice, as when nodes are drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// A number of pods, or a percentage such as 25%.
    #[serde(default = "defaults::max_unavailable")]
    #[schemars(schema_with = "count_or_percentage")]
    pub max_unavailable: IntOrString,
}

// === impl Batching ===

impl Default for Batching {
    fn default() -> Self {
        Batching {
            max_items: defaults::batch_max_items(),
            max_tokens: defaults::batch_max_tokens(),
            max_duration: defaults::max_duration(),
            max_delay: defaults::max_delay(),
            queue: Queue::default(),
        }
    }
}

// === impl Queue ===

impl Default for Queue {
    fn default() -> Self {
        Queue { max_items: defaults::queue_max_items(), max_tokens: defaults::queue_max_tokens() }
    }
}

// === impl DisruptionBudget ===

impl Default for DisruptionBudget {
    fn default() -> Self {
        DisruptionBudget { max_unavailable: defaults::max_unavailable() }
    }
}

// === free functions ===

fn count_or_percentage(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "minimum": 0,
        "maximum": 1000,
        "maxLength": 4,
        "pattern": "^(100|[0-9]{1,2})%$",
        "x-kubernetes-int-or-string": true,
    })
}
