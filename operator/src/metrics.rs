//! What the operator counts. No label is an object's name.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::webhook::WebhookMetrics;

/// Every metric of the process.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    applies: Counter,
    polls: Family<Answered, Counter>,
    leader: Gauge,
    /// Those of the webhook.
    pub(crate) webhook: WebhookMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    answered: &'static str,
}

/// Upper bounds in seconds: from what finds nothing to do to what waits for a slow API server.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("embark_operator");
        let reconciles = Family::<Outcome, Counter>::default();
        let help = "Reconciles, by the reason of their end; Ok is success";
        registry.register("reconciles", help, reconciles.clone());
        let reconcile_seconds = Histogram::new(SECONDS);
        let help = "Seconds that a reconcile took";
        registry.register("reconcile_seconds", help, reconcile_seconds.clone());
        let applies = Counter::default();
        registry.register("applies", "Children that were applied", applies.clone());
        let polls = Family::<Answered, Counter>::default();
        registry.register("polls", "Pods that were asked for their status", polls.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this replica leads, else 0", leader.clone());
        let webhook = WebhookMetrics::register(&mut registry);
        Metrics { registry, reconciles, reconcile_seconds, applies, polls, leader, webhook }
    }

    pub(crate) fn reconciled(&self, reason: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Outcome { reason }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn applied(&self) {
        self.applies.inc();
    }

    pub(crate) fn polled(&self, answered: bool) {
        let answered = if answered { "yes" } else { "no" };
        self.polls.get_or_create(&Answered { answered }).inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The text that Prometheus takes.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("text can be written to memory");
        text
    }
}
