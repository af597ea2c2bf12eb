//! Every metric of the sidecar, on a registry of its own. Label values come from closed sets, and the model's name. Handles
//! are resolved once for each model, so that a hit touches no map.

mod batch;
mod cache;
mod endpoint;
mod fetch;
mod policy;
mod process;
mod recent;
mod sheds;

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use batch::BatchFamilies;
pub use batch::BatchMetrics;
use cache::{CacheFamilies, CacheGauges};
pub use endpoint::{EndpointMetrics, SecretKind};
use fetch::FetchFamilies;
pub use fetch::{FetchMetrics, Outcome};
use policy::PolicyFamilies;
pub use policy::{PolicyMetrics, Reload};
use process::ProcessMetrics;
pub use process::ThrottledPeriods;
pub use recent::Answered;
use recent::Recent;
use sheds::{ShedFamilies, Sheds};

use crate::{
    cache::{CacheStatus, metrics::CacheMetrics},
    error::ErrorKind,
    throttling,
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
    /// What has to do with no model.
    pub endpoint: EndpointMetrics,
    /// Batches of spans that could not be sent.
    pub trace_failures: Counter,
}

#[derive(Clone, Debug)]
struct Families {
    requests: Family<ReasonLabels, Counter>,
    request_seconds: SecondsFamily<ModelLabel>,
    items: Family<SourceLabels, Counter>,
    item_errors: Family<ReasonLabels, Counter>,
    stage_seconds: SecondsFamily<StageLabels>,
    ready: Family<ModelLabel, Gauge>,
    unknown_categories: Family<ModelLabel, Counter>,
    info: Family<InfoLabels, Gauge>,
    self_test: Family<ModelLabel, Gauge<f64, AtomicU64>>,
    padding: Family<ModelLabel, Gauge<f64, AtomicU64>>,
    batch: BatchFamilies,
    cache: CacheFamilies,
    fetch: FetchFamilies,
    policy: PolicyFamilies,
    sheds: ShedFamilies,
}

/// One model's handles.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// Time of whole requests.
    pub request_seconds: Histogram,
    /// What waits for a worker, and what the workers do.
    pub batch: BatchMetrics,
    /// 1 while the model answers.
    pub ready: Gauge,
    /// Items whose id the vocabulary does not have.
    pub unknown_categories: Counter,
    /// What the model's cache counts.
    pub cache: CacheMetrics,
    /// What becomes of images that are fetched, and of inputs that failed for good.
    pub fetch: FetchMetrics,
    /// What became of changes of its policy.
    pub policy: PolicyMetrics,
    cache_gauges: CacheGauges,
    answered: Counter,
    sheds: Sheds,
    items: [Counter; Source::ALL.len()],
    recent: Arc<Recent>,
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

    /// Whether it is the cache.
    pub fn is_hit(self) -> bool {
        matches!(self, Source::HitMemory | Source::HitDisk | Source::Stale)
    }

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
        Metrics::with_throttling(throttling::periods)
    }
}

impl Metrics {
    /// Metrics with another source of how often the process ran into its CPU limit.
    pub fn with_throttling(periods: ThrottledPeriods) -> Self {
        let mut registry = Registry::with_prefix("embark");
        let families = Families::registered(&mut registry);
        let endpoint = EndpointMetrics::registered(&mut registry, families.sheds.of_calls());
        let trace_failures = Counter::default();
        let help = "Batches of spans that could not be sent";
        registry.register("trace_export_failures", help, trace_failures.clone());
        registry.register_collector(Box::new(ProcessMetrics(periods)));
        Metrics { registry, families, endpoint, trace_failures }
    }

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
            ready: Family::default(),
            unknown_categories: Family::default(),
            info: Family::default(),
            self_test: Family::default(),
            padding: Family::default(),
            batch: BatchFamilies::registered(registry),
            cache: CacheFamilies::registered(registry),
            fetch: FetchFamilies::registered(registry),
            policy: PolicyFamilies::registered(registry),
            sheds: ShedFamilies::registered(registry),
        };
        let f = &families;
        registry.register("requests", "Embed calls by reason (OK: answered)", f.requests.clone());
        registry.register("items", "Items answered, by source of the vector", f.items.clone());
        registry.register("item_errors", "Items that failed, by reason", f.item_errors.clone());
        registry.register("model_ready", "1 while the model answers", f.ready.clone());
        let help = "Items with an id that the vocabulary does not have";
        registry.register("unknown_categories", help, f.unknown_categories.clone());
        registry.register("model_info", "The model's digest and space", f.info.clone());
        let help = "The least cosine that the checks of spec.selfTest measured";
        registry.register("self_test_min_cosine", help, f.self_test.clone());
        let help = "How much a text's vector depends on padding, as 1 - cosine; above 0.001 only equal lengths are merged";
        registry.register("padding_difference", help, f.padding.clone());
        let help = "Time of Embed calls";
        registry.register_with_unit("request", help, Unit::Seconds, f.request_seconds.clone());
        let help = "Time of a call's or an item's stages";
        registry.register_with_unit("stage", help, Unit::Seconds, f.stage_seconds.clone());
        families
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
        let answered = ReasonLabels { model: model.clone(), reason: "OK" };
        ModelMetrics {
            request_seconds: families.request_seconds.get_or_create_owned(&label),
            ready: families.ready.get_or_create_owned(&label),
            unknown_categories: families.unknown_categories.get_or_create_owned(&label),
            cache: families.cache.handles(&label),
            fetch: families.fetch.handles(&label),
            policy: families.policy.handles(name),
            sheds: families.sheds.handles(name),
            cache_gauges: families.cache.gauges(&label),
            batch: families.batch.handles(&label),
            answered: families.requests.get_or_create_owned(&answered),
            items: Source::ALL.map(source),
            recent: Arc::default(),
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

    /// Counts answered items.
    pub fn items(&self, sources: impl Iterator<Item = Source>) {
        let mut counts = [0; Source::ALL.len()];
        sources.for_each(|source| counts[source as usize] += 1);
        for (counter, count) in self.items.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.inc_by(count);
        }
    }

    /// Notes what was counted so far, for [`ModelMetrics::recently_answered`]. To be called every some seconds.
    pub fn note_answered(&self, now: Instant) {
        self.recent.note(now, self.answered_items());
    }

    /// Items answered in the last five minutes.
    pub fn recently_answered(&self) -> Answered {
        self.recent.since(self.answered_items())
    }

    fn answered_items(&self) -> Answered {
        let of = |source: Source| self.items[source as usize].get();
        let hits = [Source::HitMemory, Source::HitDisk, Source::Stale].map(of).iter().sum();
        Answered { hits, items: Source::ALL.map(of).iter().sum() }
    }

    /// Counts a failed item.
    pub fn item_failed(&self, kind: ErrorKind) {
        let labels = ReasonLabels { model: self.name.clone(), reason: kind.reason() };
        self.families.item_errors.get_or_create(&labels).inc();
        self.sheds.count(kind);
    }

    /// Notes how long a stage took, in seconds.
    pub fn stage(&self, stage: Stage, seconds: f64) {
        self.stages[stage as usize].observe(seconds);
    }

    /// Notes how the cache is.
    pub fn cache_status(&self, status: &CacheStatus) {
        self.cache_gauges.set(status);
    }

    /// Says which vectors the model gives: the digest of its file, and their space.
    pub fn identify(&self, of: &[String; 2]) {
        self.families.info.get_or_create(&self.info(of)).set(1);
    }

    /// Says no more that the model gives these vectors.
    pub fn forget(&self, of: &[String; 2]) {
        self.families.info.remove(&self.info(of));
    }

    fn info(&self, [digest, space_id]: &[String; 2]) -> InfoLabels {
        let (digest, space_id) = (digest.clone(), space_id.clone());
        InfoLabels { model: self.name.clone(), digest, space_id }
    }

    /// Notes the least cosine that the checks of the spec measured.
    pub fn self_tested(&self, cosine: f64) {
        let label = ModelLabel { model: self.name.clone() };
        self.families.self_test.get_or_create(&label).set(cosine);
    }

    /// Notes how much a vector depends on padding: the largest 1 − cosine.
    pub fn padding_differs(&self, by: f64) {
        let label = ModelLabel { model: self.name.clone() };
        self.families.padding.get_or_create(&label).set(by);
    }
}

// === free functions ===

fn seconds() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}
