//! What is remembered, for how long, and what a caller gets for what is not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    choice::{CacheMode, OnMiss},
    scalar::{DurationText, Quantity},
};
use crate::defaults;

/// What is remembered, and for how long. mode, memory and disk roll the pods when they change; every other field is taken over by running pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Where vectors are kept: nowhere, in memory, or in memory and on the pod's disk.
    #[serde(default)]
    pub mode: CacheMode,
    /// How long a vector is fresh, from the start of its computation; above 0s.
    #[serde(default = "defaults::ttl")]
    pub ttl: DurationText,
    /// By how many percent of ttl an entry's life is shortened at most, so that entries made together do not end together.
    #[serde(default = "defaults::ttl_jitter_percent")]
    #[schemars(range(max = 100))]
    pub ttl_jitter_percent: u8,
    /// How long past ttl an entry is still given out, marked as stale, while it is computed anew.
    #[serde(default = "defaults::stale_while_revalidate")]
    pub stale_while_revalidate: DurationText,
    /// How long an input that failed for good, such as an image that cannot be decoded, stays failed.
    #[serde(default = "defaults::negative_ttl", rename = "negativeTTL")]
    pub negative_ttl: DurationText,
    /// What a caller gets for an input that is not remembered: Wait gives its vector once computed, ReturnDefault the default vector at once, Fail the error NOT_FOUND.
    #[serde(default)]
    pub on_miss: OnMiss,
    /// With onMiss Wait: how long a caller waits before it gets the default vector. Absent: until its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_budget: Option<DurationText>,
    /// The vector that stands for one that is not there.
    #[serde(default)]
    pub default_vector: DefaultVector,
    /// The memory tier.
    #[serde(default)]
    pub memory: MemoryTier,
    /// The disk tier.
    #[serde(default)]
    pub disk: DiskTier,
    /// Raise it, and every older entry is gone. It never falls.
    #[serde(default = "defaults::epoch")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub epoch: u64,
    /// Whether callers may invalidate entries through CacheService on the data port.
    #[serde(default)]
    pub allow_invalidation: bool,
}

/// The vector that stands for one that is not there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultVector {
    /// Zero: all zeros. Values: the numbers in values.
    #[serde(default, rename = "type")]
    pub type_: DefaultVectorType,
    /// With type Values: as many numbers as the model has dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384), inner(range(min = -1e15, max = 1e15)))]
    pub values: Option<Vec<f64>>,
}

/// What kind of default vector there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DefaultVectorType {
    /// All zeros.
    #[default]
    Zero,
    /// The numbers that the spec gives.
    Values,
}

/// The memory tier of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryTier {
    /// The most bytes that it takes; from 4Mi to 1Ti.
    #[serde(default = "defaults::memory_size_limit")]
    pub size_limit: Quantity,
}

/// The disk tier of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskTier {
    /// The most bytes that its files take together; from 64Mi to 16Ti.
    #[serde(default = "defaults::disk_size_limit")]
    pub size_limit: Quantity,
}

// === impl Cache ===

impl Default for Cache {
    fn default() -> Self {
        Cache {
            mode: CacheMode::default(),
            ttl: defaults::ttl(),
            ttl_jitter_percent: defaults::ttl_jitter_percent(),
            stale_while_revalidate: defaults::stale_while_revalidate(),
            negative_ttl: defaults::negative_ttl(),
            on_miss: OnMiss::default(),
            wait_budget: None,
            default_vector: DefaultVector::default(),
            memory: MemoryTier::default(),
            disk: DiskTier::default(),
            epoch: defaults::epoch(),
            allow_invalidation: false,
        }
    }
}

// === impl MemoryTier ===

impl Default for MemoryTier {
    fn default() -> Self {
        MemoryTier { size_limit: defaults::memory_size_limit() }
    }
}

// === impl DiskTier ===

impl Default for DiskTier {
    fn default() -> Self {
        DiskTier { size_limit: defaults::disk_size_limit() }
    }
}
