//! What the operator says of a model. It is never read to decide anything that matters.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator last saw of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddingModelStatus {
    /// The generation of the spec that the status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Pods that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ready_replicas: Option<i32>,
    /// The label selector of the pods, as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Where callers reach the model: host and port of its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub address: Option<String>,
    /// The SHA-256 digest of the model that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub model_digest: Option<String>,
    /// The space that the model's vectors lie in. Only vectors of one space compare.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "spaceID")]
    #[schemars(length(max = 64))]
    pub space_id: Option<String>,
    /// How far the cache policy has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// What the caches did in the last five minutes, over all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,
    /// Accepted, ModelVerified, Available, Progressing, CacheHealthy and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far the cache policy has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The hash of the policy that the spec asks for.
    #[schemars(length(max = 64))]
    pub desired_hash: String,
    /// Pods that follow it.
    #[schemars(range(min = 0))]
    pub pods_current: i32,
    /// Pods that there are.
    #[schemars(range(min = 0))]
    pub pods_total: i32,
}

/// What the caches did in the last five minutes, over all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// Items that were remembered, in percent of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub hit_percent: Option<i32>,
    /// Entries that are held.
    #[schemars(range(min = 0))]
    pub entries: i64,
    /// Bytes that they take.
    #[schemars(range(min = 0))]
    pub bytes: i64,
}
