//! Every metric of the sidecar, on a registry of its own. Label values come from closed sets, and the model's name. Handles
//! are resolved once for each model, so that a hit touches no map.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{cache::CacheMetrics, error::ErrorKind};

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
    /// The model, for an equal item of the batch.
    Coalesced,
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
    workers: Family<ModelLabel, Gauge>,
    worker_restarts: Family<ModelLabel, Counter>,
    ready: Family<ModelLabel, Gauge>,
    info: Family<InfoLabels, Gauge>,
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
    /// Rows dropped before a run because nobody waited for them any more.
    pub cancelled: Counter,
    /// Threads that compute.
    pub workers: Gauge,
    /// Threads that were replaced after a panic.
    pub worker_restarts: Counter,
    /// 1 while the model answers.
    pub ready: Gauge,
    /// The model's cache.
    pub cache: CacheMetrics,
    answered: Counter,
    items: [Counter; Source::ALL.len()],
    stages: [Histogram; Stage::ALL.len()],
    name: String,
    families: Families,
}

// === impl Source ===

impl Source {
    const ALL: [Source; 4] =
        [Source::HitMemory, Source::HitDisk, Source::Computed, Source::Coalesced];

    fn label(self) -> &'static str {
        match self {
            Source::HitMemory => "hit_memory",
            Source::HitDisk => "hit_disk",
            Source::Computed => "computed",
            Source::Coalesced => "coalesced",
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
    /// The handles of a model. To be called once for each.
    pub fn model(&mut self, name: &str) -> ModelMetrics {
        let cache = CacheMetrics::default();
        let labelled = self.registry.sub_registry_with_label(("model".into(), name.to_owned().into()));
        cache.register(labelled);
        ModelMetrics::new(name, self.families.clone(), cache)
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
            workers: Family::default(),
            worker_restarts: Family::default(),
            ready: Family::default(),
            info: Family::default(),
        };
        let f = &families;
        registry.register("requests", "Embed calls by reason (OK: answered)", f.requests.clone());
        registry.register("items", "Items answered, by source of the vector", f.items.clone());
        registry.register("item_errors", "Items that failed, by reason", f.item_errors.clone());
        registry.register("queue_items", "Rows that wait for a worker", f.queue_items.clone());
        registry.register("queue_cost", "Cost of the rows that wait", f.queue_cost.clone());
        let help = "Rows dropped before compute because nobody waited any more";
        registry.register("cancelled_before_compute", help, f.cancelled.clone());
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

// === impl ModelMetrics ===

impl ModelMetrics {
    fn new(name: &str, families: Families, cache: CacheMetrics) -> Self {
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
            queue_items: families.queue_items.get_or_create_owned(&label),
            queue_cost: families.queue_cost.get_or_create_owned(&label),
            cancelled: families.cancelled.get_or_create_owned(&label),
            workers: families.workers.get_or_create_owned(&label),
            worker_restarts: families.worker_restarts.get_or_create_owned(&label),
            ready: families.ready.get_or_create_owned(&label),
            cache,
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

fn seconds() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}
