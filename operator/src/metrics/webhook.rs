//! What is counted of the webhook.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds in seconds, up to what the API server waits.
const SECONDS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];

/// What is counted of the webhook.
#[derive(Clone)]
pub(crate) struct WebhookMetrics {
    answers: Family<Outcome, Histogram, fn() -> Histogram>,
    certificate_end: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

// === impl WebhookMetrics ===

impl WebhookMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let answers = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> _);
        let help = "Seconds until a pod was answered for, by outcome: allowed, refused or error";
        registry.register("webhook_seconds", help, answers.clone());
        let certificate_end = Gauge::default();
        let help = "When the webhook's certificate ends, in seconds since 1970; 0 without one";
        registry.register("webhook_certificate_end_seconds", help, certificate_end.clone());
        WebhookMetrics { answers, certificate_end }
    }

    pub(crate) fn answered(&self, outcome: &'static str, took: Duration) {
        self.answers.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    pub(crate) fn certificate_ends(&self, second: i64) {
        self.certificate_end.set(second);
    }
}
