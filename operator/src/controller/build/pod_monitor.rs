//! Where Prometheus finds a model's metrics, in a cluster whose Prometheus goes by PodMonitors.

use serde_json::json;

use super::{ValidatedModel, deployment::ADMIN, metadata};
use crate::pod_monitors::PodMonitor;

pub(super) fn build(model: &ValidatedModel) -> PodMonitor {
    PodMonitor {
        metadata: metadata(model, model.names().main()),
        spec: json!({
            "selector": { "matchLabels": model.names().selector() },
            "podMetricsEndpoints": [{ "port": ADMIN, "path": "/metrics" }],
        }),
    }
}
