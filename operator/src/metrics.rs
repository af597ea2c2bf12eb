//! What the operator counts. No label is an object's name, and every label's values are of a closed list.

#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::webhook::WebhookMetrics;
use crate::{process::Process, work::Work};

/// Every metric of the process.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    applies: Counter,
    polls: Family<Answered, Counter>,
    api_requests: Family<Asked, Counter>,
    leader: Gauge,
    /// What there is to do.
    pub(crate) work: Work,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    verb: &'static str,
    code: &'static str,
}

/// Upper bounds in seconds: from what finds nothing to do to what waits for a slow API server.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Codes of an API server that are told apart.
const CODES: [(u16, &str); 13] = [
    (200, "200"),
    (201, "201"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (409, "409"),
    (410, "410"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
];

// === impl Metrics ===

impl Metrics {
    /// Metrics of a process that has done nothing. `failures` are batches of spans that no collector took.
    pub(crate) fn new(failures: Counter) -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("embark_operator");
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
        let api_requests = Family::<Asked, Counter>::default();
        let help = "Requests to the API server, by what for and its answer: 2xx to 5xx when it has no code of its own \
                    here, none when it did not answer";
        registry.register("api_requests", help, api_requests.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this replica leads, else 0", leader.clone());
        let help = "Batches of spans that the collector did not take";
        registry.register("trace_export_failures", help, failures);
        let work = Work::default();
        registry.register_collector(Box::new(work.clone()));
        let webhook = WebhookMetrics::register(registry);
        let registry = root;
        Metrics {
            registry,
            reconciles,
            reconcile_seconds,
            applies,
            polls,
            api_requests,
            leader,
            work,
            webhook,
        }
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

    /// A request to the API server has ended. No code: it was not answered.
    pub(crate) fn requested(&self, verb: &'static str, code: Option<u16>) {
        let known = code.and_then(|code| CODES.iter().find(|(known, _)| *known == code));
        let code = match (code, known) {
            (None, _) => "none",
            (_, Some((_, text))) => text,
            (Some(200..300), None) => "2xx",
            (Some(300..400), None) => "3xx",
            (Some(400..500), None) => "4xx",
            (Some(_), None) => "5xx",
        };
        self.api_requests.get_or_create(&Asked { verb, code }).inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
        if !leads {
            self.work.end();
        }
    }

    /// The text that Prometheus takes.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("text can be written to memory");
        text
    }
}
