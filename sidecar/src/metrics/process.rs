//! What the system says of the process, read when somebody asks.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::ConstCounter,
};

/// Periods in which the process ran into its CPU limit; `None`: nothing counts them, and there is no such metric.
pub type ThrottledPeriods = fn() -> Option<u64>;

/// The metrics.
#[derive(Debug)]
pub(super) struct ProcessMetrics(pub(super) ThrottledPeriods);

// === impl ProcessMetrics ===

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(periods) = (self.0)() else { return Ok(()) };
        let counter = ConstCounter::new(periods);
        let help =
            "Periods in which the process ran into its CPU limit; absent where nothing counts them";
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor("throttled_periods", help, None, kind)?)
    }
}
