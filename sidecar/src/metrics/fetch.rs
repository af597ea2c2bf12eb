//! What becomes of images that are fetched by their URL, and of inputs that failed for good.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{ModelLabel, SecondsFamily, seconds};

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The file came.
    Fetched,
    /// The URL leads to where nothing is fetched from.
    NotAllowed,
    /// What is there is no image, for good.
    Failed,
    /// The server failed, or could not be reached.
    Unavailable,
    /// Its time was over.
    TimedOut,
    /// Nobody wanted it any more.
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct FetchFamilies {
    fetches: Family<FetchLabels, Counter>,
    seconds: SecondsFamily<ModelLabel>,
    redirects: Family<ModelLabel, Counter>,
    negative_answers: Family<ModelLabel, Counter>,
}

/// One model's handles.
#[derive(Clone, Debug)]
pub struct FetchMetrics {
    /// Redirects that were followed or refused.
    pub redirects: Counter,
    /// Items answered by the memory of how they failed.
    pub negative_answers: Counter,
    outcomes: [Counter; Outcome::ALL.len()],
    seconds: Histogram,
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Outcome; 6] = [
        Outcome::Fetched,
        Outcome::NotAllowed,
        Outcome::Failed,
        Outcome::Unavailable,
        Outcome::TimedOut,
        Outcome::GivenUp,
    ];

    fn label(self) -> &'static str {
        match self {
            Outcome::Fetched => "fetched",
            Outcome::NotAllowed => "not_allowed",
            Outcome::Failed => "failed",
            Outcome::Unavailable => "unavailable",
            Outcome::TimedOut => "timed_out",
            Outcome::GivenUp => "given_up",
        }
    }
}

// === impl FetchFamilies ===

impl FetchFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = FetchFamilies {
            fetches: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            redirects: Family::default(),
            negative_answers: Family::default(),
        };
        let f = &families;
        registry.register(
            "fetches",
            "Images fetched by URL, by what became of it",
            f.fetches.clone(),
        );
        let help = "Time of fetches of images, redirects included";
        registry.register_with_unit("fetch", help, Unit::Seconds, f.seconds.clone());
        registry.register("fetch_redirects", "Redirects of fetches", f.redirects.clone());
        let help = "Items not tried again because they failed for good within negativeTTL";
        registry.register("negative_answers", help, f.negative_answers.clone());
        families
    }

    /// Every outcome is there from the start, so that the first failure is seen as a rise.
    pub(super) fn handles(&self, label: &ModelLabel) -> FetchMetrics {
        let outcome = |outcome: Outcome| {
            let labels = FetchLabels { model: label.model.clone(), outcome: outcome.label() };
            self.fetches.get_or_create_owned(&labels)
        };
        FetchMetrics {
            redirects: self.redirects.get_or_create_owned(label),
            negative_answers: self.negative_answers.get_or_create_owned(label),
            outcomes: Outcome::ALL.map(outcome),
            seconds: self.seconds.get_or_create_owned(label),
        }
    }
}

// === impl FetchMetrics ===

impl FetchMetrics {
    /// Counts a fetch.
    pub fn fetched(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Fetches that ended so.
    #[cfg(test)]
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].get()
    }
}
