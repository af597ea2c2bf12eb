//! What waits for a worker, and what the workers do.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::ModelLabel;

type Seconds = Counter<f64, AtomicU64>;
type Ratio = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct BatchFamilies {
    queue_items: Family<ModelLabel, Gauge>,
    queue_cost: Family<ModelLabel, Gauge>,
    queue_wait: Family<ModelLabel, Seconds>,
    saturation: Family<ModelLabel, Ratio>,
    flights: Family<ModelLabel, Gauge>,
    cancelled: Family<ModelLabel, Counter>,
    dropped_fills: Family<ModelLabel, Counter>,
    batch_items: Family<ModelLabel, Histogram, fn() -> Histogram>,
    tokens: Family<TokenLabels, Counter>,
    busy: Family<ModelLabel, Seconds>,
    workers: Family<ModelLabel, Gauge>,
    worker_restarts: Family<ModelLabel, Counter>,
}

/// One model's handles.
#[derive(Clone, Debug)]
pub struct BatchMetrics {
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
    /// Engines that were replaced after a panic.
    pub worker_restarts: Counter,
    /// Seconds that rows have waited for a worker, all together.
    pub queue_wait: Seconds,
    /// Seconds that workers have computed.
    pub busy: Seconds,
    saturation: Ratio,
    flights: Gauge,
    batch_items: Histogram,
    useful_tokens: Counter,
    padding_tokens: Counter,
}

// === impl BatchFamilies ===

impl BatchFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = BatchFamilies {
            queue_items: Family::default(),
            queue_cost: Family::default(),
            queue_wait: Family::default(),
            saturation: Family::default(),
            flights: Family::default(),
            cancelled: Family::default(),
            dropped_fills: Family::default(),
            batch_items: Family::new_with_constructor(rows),
            tokens: Family::default(),
            busy: Family::default(),
            workers: Family::default(),
            worker_restarts: Family::default(),
        };
        let f = &families;
        registry.register("queue_items", "Rows that wait for a worker", f.queue_items.clone());
        registry.register("queue_cost", "Cost of the rows that wait", f.queue_cost.clone());
        let help = "Time that rows have waited for a worker, all together";
        registry.register_with_unit("queue_wait", help, Unit::Seconds, f.queue_wait.clone());
        let help = "Load of the workers: 1 when all compute and nothing waits, and 1 more for each longest allowed run \
                    that waits for each of them";
        registry.register("saturation_ratio", help, f.saturation.clone());
        registry.register("flights", "Vectors under way", f.flights.clone());
        let help = "Rows dropped before compute because nobody waited any more";
        registry.register("cancelled_before_compute", help, f.cancelled.clone());
        let help = "Items not computed behind their answer because the queue was full";
        registry.register("dropped_fills", help, f.dropped_fills.clone());
        registry.register("batch_items", "Rows of a run", f.batch_items.clone());
        let help = "Tokens computed: useful ones, and padding beside them";
        registry.register("computed_tokens", help, f.tokens.clone());
        let help = "Time that workers have computed, all together";
        registry.register_with_unit("worker_busy", help, Unit::Seconds, f.busy.clone());
        registry.register("workers", "Threads that compute", f.workers.clone());
        let help = "Engines replaced after a panic";
        registry.register("worker_restarts", help, f.worker_restarts.clone());
        families
    }

    pub(super) fn handles(&self, label: &ModelLabel) -> BatchMetrics {
        let tokens = |kind| {
            let labels = TokenLabels { model: label.model.clone(), kind };
            self.tokens.get_or_create_owned(&labels)
        };
        BatchMetrics {
            queue_items: self.queue_items.get_or_create_owned(label),
            queue_cost: self.queue_cost.get_or_create_owned(label),
            cancelled: self.cancelled.get_or_create_owned(label),
            dropped_fills: self.dropped_fills.get_or_create_owned(label),
            workers: self.workers.get_or_create_owned(label),
            worker_restarts: self.worker_restarts.get_or_create_owned(label),
            queue_wait: self.queue_wait.get_or_create_owned(label),
            busy: self.busy.get_or_create_owned(label),
            saturation: self.saturation.get_or_create_owned(label),
            flights: self.flights.get_or_create_owned(label),
            batch_items: self.batch_items.get_or_create_owned(label),
            useful_tokens: tokens("useful"),
            padding_tokens: tokens("padding"),
        }
    }
}

// === impl BatchMetrics ===

impl BatchMetrics {
    /// Notes a run of so many rows, and of how many of its tokens were not padding.
    pub fn ran(&self, rows: u32, useful: u64, padded: u64) {
        self.batch_items.observe(rows.into());
        self.useful_tokens.inc_by(useful);
        self.padding_tokens.inc_by(padded.saturating_sub(useful));
    }

    /// Notes how busy the workers are, and how many vectors are under way.
    pub fn load(&self, saturation: f64, flights: usize) {
        self.saturation.set(saturation);
        self.flights.set(i64::try_from(flights).unwrap_or(i64::MAX));
    }
}

// === free functions ===

fn rows() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0])
}
