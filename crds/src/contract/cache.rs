//! What is remembered, where and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration::{milliseconds, optional_milliseconds};

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

/// The part of the contract that is reloaded live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachePolicy {
    /// [`VERSION`](super::VERSION) of the writer.
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
