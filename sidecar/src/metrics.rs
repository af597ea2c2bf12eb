//! Every metric of the sidecar, on a registry of its own. Label values come from closed sets, and the model's name. Handles
//! are resolved once for each model, so that a hit touches no map.

mod policy;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use policy::PolicyFamilies;
pub use policy::{PolicyMetrics, Reload};

use crate::{
    cache::{CacheStatus, metrics::CacheMetrics, store::DiskState},
    error::ErrorKind,
};

/// From a memory hit to a long text on a busy machine, in seconds.
const SECONDS_BUCKETS: [f64; 17] = [
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Where an item's vector came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The memory tier.
    HitMemory,
    /// The disk tier.
    HitDisk,
    /// The model, for this item.
    Computed,
    /// The model, for an equal item of another caller or of the batch.
    Coalesced,
    /// Either tier, past its time to live.
    Stale,
    /// The default vector.
    Default,
}

/// A part of a request's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Keys and the memory tier, of a request.
    Lookup,
    /// The disk tier, of a request.
    Disk,
    /// Tokenising, of an item.
    Preprocess,
    /// Waiting for a worker, of an item.
    Queue,
    /// The model's run.
    Inference,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    model: String,
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    model: String,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    model: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    model: String,
    digest: String,
    space_id: String,
}

type SecondsFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// The process's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
}

#[derive(Clone, Debug)]
struct Families {
    requests: Family<ReasonLabels, Counter>,
    request_seconds: SecondsFamily<ModelLabel>,
    items: Family<SourceLabels, Counter>,
    item_errors: Family<ReasonLabels, Counter>,
    stage_seconds: SecondsFamily<StageLabels>,
    queue_items: Family<ModelLabel, Gauge>,
    queue_cost: Family<ModelLabel, Gauge>,
    cancelled: Family<ModelLabel, Counter>,
    dropped_fills: Family<ModelLabel, Counter>,
    batch_items: Family<ModelLabel, Histogram, fn() -> Histogram>,
    tokens: Family<TokenLabels, Counter>,
    workers: Family<ModelLabel, Gauge>,
    worker_restarts: Family<ModelLabel, Counter>,
    ready: Family<ModelLabel, Gauge>,
    info: Family<InfoLabels, Gauge>,
    cache: CacheFamilies,
    policy: PolicyFamilies,
}

#[derive(Clone, Debug, Default)]
struct CacheFamilies {
    entries: Family<ModelLabel, Gauge>,
    memory_bytes: Family<ModelLabel, Gauge>,
    disk_bytes: Family<ModelLabel, Gauge>,
    healthy: Family<ModelLabel, Gauge>,
    evictions: Family<ModelLabel, Counter>,
    rotations: Family<ModelLabel, Counter>,
    bad_records: Family<ModelLabel, Counter>,
    late_reads: Family<ModelLabel, Counter>,
    writes: Family<ModelLabel, Counter>,
    dropped_writes: Family<ModelLabel, Counter>,
    disk_errors: Family<ModelLabel, Counter>,
    discarded_databases: Family<ModelLabel, Counter>,
}

/// One model's handles.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// Time of whole requests.
    pub request_seconds: Histogram,
    /// Rows that wait for a worker.
    pub queue_items: Gauge,
    /// Their cost.
    pub queue_cost: Gauge,
    /// Rows dropped before a run because nobody wanted them any more.
    pub cancelled: Counter,
    /// Items that were not computed behind their answer because the queue was full.
    pub dropped_fills: Counter,
    /// Threads that compute.
    pub workers: Gauge,
    /// Threads that were replaced after a panic.
    pub worker_restarts: Counter,
    /// 1 while the model answers.
    pub ready: Gauge,
    /// What the model's cache counts.
    pub cache: CacheMetrics,
    /// What became of changes of its policy.
    pub policy: PolicyMetrics,
    batch_items: Histogram,
    useful_tokens: Counter,
    padding_tokens: Counter,
    cache_entries: Gauge,
    cache_memory_bytes: Gauge,
    cache_healthy: Gauge,
    answered: Counter,
    items: [Counter; Source::ALL.len()],
    stages: [Histogram; Stage::ALL.len()],
    name: String,
    families: Families,
}

// === impl Source ===

impl Source {
    const ALL: [Source; 6] = [
        Source::HitMemory,
        Source::HitDisk,
        Source::Computed,
        Source::Coalesced,
        Source::Stale,
        Source::Default,
    ];

    fn label(self) -> &'static str {
        match self {
            Source::HitMemory => "hit_memory",
            Source::HitDisk => "hit_disk",
            Source::Computed => "computed",
            Source::Coalesced => "coalesced",
            Source::Stale => "stale",
            Source::Default => "default",
        }
    }
}

// === impl Stage ===

impl Stage {
    const ALL: [Stage; 5] =
        [Stage::Lookup, Stage::Disk, Stage::Preprocess, Stage::Queue, Stage::Inference];

    fn label(self) -> &'static str {
        match self {
            Stage::Lookup => "lookup",
            Stage::Disk => "disk",
            Stage::Preprocess => "preprocess",
            Stage::Queue => "queue",
            Stage::Inference => "inference",
        }
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("embark");
        let families = Families::registered(&mut registry);
        Metrics { registry, families }
    }
}

impl Metrics {
    /// The handles of a model.
    pub fn model(&self, name: &str) -> ModelMetrics {
        ModelMetrics::new(name, self.families.clone())
    }

    /// All metrics, as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a String does not fail");
        out
    }
}

// === impl Families ===

impl Families {
    fn registered(registry: &mut Registry) -> Self {
        let families = Families {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            items: Family::default(),
            item_errors: Family::default(),
            stage_seconds: Family::new_with_constructor(seconds),
            queue_items: Family::default(),
            queue_cost: Family::default(),
            cancelled: Family::default(),
            dropped_fills: Family::default(),
            batch_items: Family::new_with_constructor(rows),
            tokens: Family::default(),
            workers: Family::default(),
            worker_restarts: Family::default(),
            ready: Family::default(),
            info: Family::default(),
            cache: CacheFamilies::registered(registry),
            policy: PolicyFamilies::registered(registry),
        };
        let f = &families;
        registry.register("requests", "Embed calls by reason (OK: answered)", f.requests.clone());
        registry.register("items", "Items answered, by source of the vector", f.items.clone());
        registry.register("item_errors", "Items that failed, by reason", f.item_errors.clone());
        registry.register("queue_items", "Rows that wait for a worker", f.queue_items.clone());
        registry.register("queue_cost", "Cost of the rows that wait", f.queue_cost.clone());
        let help = "Rows dropped before compute because nobody waited any more";
        registry.register("cancelled_before_compute", help, f.cancelled.clone());
        let help = "Items not computed behind their answer because the queue was full";
        registry.register("dropped_fills", help, f.dropped_fills.clone());
        registry.register("batch_items", "Rows of a run", f.batch_items.clone());
        let help = "Tokens computed: useful ones, and padding beside them";
        registry.register("computed_tokens", help, f.tokens.clone());
        registry.register("workers", "Threads that compute", f.workers.clone());
        let help = "Workers replaced after a panic";
        registry.register("worker_restarts", help, f.worker_restarts.clone());
        registry.register("model_ready", "1 while the model answers", f.ready.clone());
        registry.register("model_info", "The model's digest and space", f.info.clone());
        let help = "Time of Embed calls";
        registry.register_with_unit("request", help, Unit::Seconds, f.request_seconds.clone());
        let help = "Time of a call's or an item's stages";
        registry.register_with_unit("stage", help, Unit::Seconds, f.stage_seconds.clone());
        families
    }
}

// === impl CacheFamilies ===

impl CacheFamilies {
    fn registered(registry: &mut Registry) -> Self {
        let families = CacheFamilies::default();
        let f = &families;
        let cache = registry.sub_registry_with_prefix("cache");
        cache.register("entries", "Entries in memory", f.entries.clone());
        cache.register("memory_bytes", "Bytes of the entries in memory", f.memory_bytes.clone());
        let help = "Bytes of every file of the disk tier";
        cache.register("disk_bytes", help, f.disk_bytes.clone());
        cache.register("healthy", "0 while the disk tier is off by a fault", f.healthy.clone());
        let help = "Entries that left memory for others";
        cache.register("evictions", help, f.evictions.clone());
        let help = "Times that the older database was deleted for a new one";
        cache.register("rotations", help, f.rotations.clone());
        let help = "Records on disk that did not match their checksum";
        cache.register("bad_records", help, f.bad_records.clone());
        let help = "Lookups on disk that took too long and became misses";
        cache.register("late_reads", help, f.late_reads.clone());
        cache.register("writes", "Entries written to disk", f.writes.clone());
        let help = "Entries not written to disk because too many waited or the disk tier was off";
        cache.register("dropped_writes", help, f.dropped_writes.clone());
        let help = "Faults that switched the disk tier off";
        cache.register("disk_errors", help, f.disk_errors.clone());
        let help = "Databases deleted because they were damaged";
        cache.register("discarded_databases", help, f.discarded_databases.clone());
        families
    }

    fn handles(&self, label: &ModelLabel) -> CacheMetrics {
        CacheMetrics {
            evictions: self.evictions.get_or_create_owned(label),
            rotations: self.rotations.get_or_create_owned(label),
            bad_records: self.bad_records.get_or_create_owned(label),
            late_reads: self.late_reads.get_or_create_owned(label),
            dropped_writes: self.dropped_writes.get_or_create_owned(label),
            writes: self.writes.get_or_create_owned(label),
            disk_errors: self.disk_errors.get_or_create_owned(label),
            discarded_databases: self.discarded_databases.get_or_create_owned(label),
            disk_bytes: self.disk_bytes.get_or_create_owned(label),
        }
    }
}

// === impl ModelMetrics ===

impl ModelMetrics {
    fn new(name: &str, families: Families) -> Self {
        let model = name.to_owned();
        let label = ModelLabel { model: model.clone() };
        let source = |source: Source| {
            let labels = SourceLabels { model: model.clone(), source: source.label() };
            families.items.get_or_create_owned(&labels)
        };
        let stage = |stage: Stage| {
            let labels = StageLabels { model: model.clone(), stage: stage.label() };
            families.stage_seconds.get_or_create_owned(&labels)
        };
        let tokens = |kind| TokenLabels { model: model.clone(), kind };
        let answered = ReasonLabels { model: model.clone(), reason: "OK" };
        ModelMetrics {
            request_seconds: families.request_seconds.get_or_create_owned(&label),
            queue_items: families.queue_items.get_or_create_owned(&label),
            queue_cost: families.queue_cost.get_or_create_owned(&label),
            cancelled: families.cancelled.get_or_create_owned(&label),
            dropped_fills: families.dropped_fills.get_or_create_owned(&label),
            batch_items: families.batch_items.get_or_create_owned(&label),
            useful_tokens: families.tokens.get_or_create_owned(&tokens("useful")),
            padding_tokens: families.tokens.get_or_create_owned(&tokens("padding")),
            workers: families.workers.get_or_create_owned(&label),
            worker_restarts: families.worker_restarts.get_or_create_owned(&label),
            ready: families.ready.get_or_create_owned(&label),
            cache: families.cache.handles(&label),
            policy: families.policy.handles(name),
            cache_entries: families.cache.entries.get_or_create_owned(&label),
            cache_memory_bytes: families.cache.memory_bytes.get_or_create_owned(&label),
            cache_healthy: families.cache.healthy.get_or_create_owned(&label),
            answered: families.requests.get_or_create_owned(&answered),
            items: Source::ALL.map(source),
            stages: Stage::ALL.map(stage),
            name: model,
            families,
        }
    }

    /// Handles that no registry knows, for tests of a part.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Metrics::default().model("test")
    }

    /// Counts an answered call.
    pub fn request_answered(&self) {
        self.answered.inc();
    }

    /// Counts a failed call.
    pub fn request_failed(&self, kind: ErrorKind) {
        let labels = ReasonLabels { model: self.name.clone(), reason: kind.reason() };
        self.families.requests.get_or_create(&labels).inc();
    }

    /// Counts an answered item.
    pub fn item(&self, source: Source) {
        self.items[source as usize].inc();
    }

    /// Counts a failed item.
    pub fn item_failed(&self, kind: ErrorKind) {
        let labels = ReasonLabels { model: self.name.clone(), reason: kind.reason() };
        self.families.item_errors.get_or_create(&labels).inc();
    }

    /// Notes how long a stage took, in seconds.
    pub fn stage(&self, stage: Stage, seconds: f64) {
        self.stages[stage as usize].observe(seconds);
    }

    /// Notes a run of so many rows, and of how many of its tokens were not padding.
    pub fn ran(&self, rows: u32, useful: u64, padded: u64) {
        self.batch_items.observe(rows.into());
        self.useful_tokens.inc_by(useful);
        self.padding_tokens.inc_by(padded.saturating_sub(useful));
    }

    /// Notes how the cache is.
    pub fn cache_status(&self, status: &CacheStatus) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.cache_entries.set(gauge(status.memory_entries));
        self.cache_memory_bytes.set(gauge(status.memory_bytes));
        let healthy = !matches!(status.disk, DiskState::Degraded { .. });
        self.cache_healthy.set(healthy.into());
    }

    /// Says which vectors the model gives.
    pub fn identify(&self, digest: &str, space_id: &str) {
        let labels = InfoLabels {
            model: self.name.clone(),
            digest: digest.to_owned(),
            space_id: space_id.to_owned(),
        };
        self.families.info.get_or_create(&labels).set(1);
    }
}

// === free functions ===

fn rows() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0])
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}
