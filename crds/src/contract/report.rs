//! What a pod says of itself at `/status` of its admin port: the sidecar writes it, the operator and people read it.

use serde::{Deserialize, Serialize};

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What it calls itself: the pod's name.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// Whether requests should be sent to it.
    pub ready: bool,
    /// Why not; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it takes to be let in.
    #[serde(default)]
    pub endpoint: EndpointReport,
    /// Every model that it serves, or should.
    pub models: Vec<ModelReport>,
}

/// What it takes to be let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Whether callers need a token.
    pub token: bool,
    /// Why files as they are now are not what is used; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A model of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReport {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: ModelState,
    /// Why, when it is not ready; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The space of its vectors; empty, as the digest and the policy's hash, while what it is cannot be read.
    pub space_id: String,
    /// The SHA-256 digest of the model's file.
    pub model_digest: String,
    /// The length of its vectors.
    pub dimensions: u32,
    /// The hash of the cache policy that it follows.
    pub policy_hash: String,
    /// What waits for a worker.
    pub queue: QueueReport,
    /// How rows are merged, once it was tried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merging: Option<MergingReport>,
    /// Its cache, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheReport>,
    /// Another version of it that is to take its place, or that cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextReport>,
}

/// A version of a model beside the one that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextReport {
    /// How far it is. When it is ready it takes over, and is reported as the model.
    pub state: ModelState,
    /// Why, when it failed; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The space of its vectors; empty when what is asked for cannot be read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub space_id: String,
    /// The SHA-256 digest of its file; or empty, as above.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model_digest: String,
}

/// How much a text's vector depends on what is computed with it, as was found out before the model was ready. In millionths
/// of 1 − cosine, the largest of some texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MergingReport {
    /// Alone, against together with a longer one.
    pub padded_difference_ppm: u32,
    /// Alone, against together with another of the same length.
    pub equal_difference_ppm: u32,
    /// Whether only texts of equal length are computed together.
    pub equal_lengths_only: bool,
}

/// How far a model is. The states follow each other in this order, and failed may follow any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ModelState {
    /// Nothing was done yet, or the last try failed and there will be another.
    Pending,
    /// A file is coming in.
    Fetching,
    /// A file is being hashed.
    Verifying,
    /// The files are being parsed and optimised.
    Loading,
    /// The model is being tried out.
    Warming,
    /// Its checks (spec.selfTest) are made.
    SelfTest,
    /// It answers.
    Ready,
    /// It is not served.
    Failed,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

/// What waits for a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueReport {
    /// Rows.
    pub items: i64,
    /// What they cost.
    pub cost: i64,
    /// The most rows.
    pub max_items: u32,
    /// The most that they may cost.
    pub max_cost: u32,
    /// Threads that take from the queue.
    pub workers: i64,
    /// Runs under way.
    #[serde(default)]
    pub running: u64,
    /// How long what waits will take, in milliseconds, with all workers on it.
    #[serde(default)]
    pub wait_ms: u64,
    /// Vectors under way.
    #[serde(default)]
    pub flights: u64,
    /// What runs were measured to take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<CostReport>,
}

/// What a run of one shape takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CostReport {
    /// Rows of the run.
    pub rows: u32,
    /// The length of the longest row, in tokens; 1 for what is not text.
    pub length: u32,
    /// Microseconds on one thread.
    pub microseconds: u64,
}

/// A model's cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheReport {
    /// The epoch of the policy that it follows.
    pub epoch: u64,
    /// What of the policy it does not follow, and why; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Items answered in the last five minutes, and how many of them from the cache.
    #[serde(default)]
    pub recent: RecentReport,
    /// The memory tier.
    pub memory: MemoryReport,
    /// The disk tier.
    pub disk: DiskReport,
}

/// Items answered in the last five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentReport {
    /// From the cache, fresh or stale.
    pub hits: u64,
    /// In all.
    pub items: u64,
    /// The share of the first in the second, in whole percent; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_percent: Option<u8>,
}

/// A cache's memory tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryReport {
    /// Vectors.
    pub entries: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// The most bytes.
    pub size_limit: u64,
}

/// A cache's disk tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// How it is.
    pub state: DiskState,
    /// Why, when it is degraded; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Bytes of every file.
    pub bytes: u64,
    /// The most bytes.
    pub size_limit: u64,
}

/// How a disk tier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskState {
    /// The policy has none.
    Off,
    /// It remembers.
    Healthy,
    /// It does not, and the model is served from memory and by computing.
    Degraded,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

// === impl ModelState ===

impl ModelState {
    /// Its name, for people and machines.
    pub fn as_str(self) -> &'static str {
        match self {
            ModelState::Pending => "pending",
            ModelState::Fetching => "fetching",
            ModelState::Verifying => "verifying",
            ModelState::Loading => "loading",
            ModelState::Warming => "warming",
            ModelState::SelfTest => "selfTest",
            ModelState::Ready => "ready",
            ModelState::Failed => "failed",
            ModelState::Unknown => "unknown",
        }
    }
}
