//! What a call answers.

use std::time::Duration;

use crate::{
    embedding::Vector,
    error::{Error, ErrorKind},
    flight::Stages,
    metrics::Source,
};

/// A batch of results, as many as the items and in their order.
#[derive(Debug)]
pub struct Reply {
    /// The length of every vector.
    pub dimensions: u32,
    /// What became of each item.
    pub items: Vec<Result<EmbeddedItem, Error>>,
    /// How long the stages took, of the slowest item each.
    pub timings: Timings,
}

/// A vector and where it came from.
#[derive(Clone, Debug)]
pub struct EmbeddedItem {
    /// The vector, of the reply's dimensions.
    pub vector: Vector,
    /// Where it came from.
    pub source: Source,
    /// Milliseconds since its computation began; 0 when it was computed now.
    pub age_ms: u64,
    /// Tokens that the model read.
    pub tokens: u32,
    /// Whether the text was cut.
    pub truncated: bool,
    /// How many windows of the text were averaged; 0 or 1: it was not split.
    pub chunks: u32,
    /// Whether the row of unknown ids answered.
    pub unknown_category: bool,
}

/// How long a call's stages took, of the slowest item each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// All of it.
    pub total: Duration,
    /// Keys and the memory tier.
    pub lookup: Duration,
    /// The disk tier.
    pub disk: Duration,
    /// Tokenising.
    pub preprocess: Duration,
    /// Waiting for a worker.
    pub queue: Duration,
    /// The model's run.
    pub inference: Duration,
}

/// The results as they come in, in any order.
pub(super) struct Answers {
    slots: Vec<Option<Result<EmbeddedItem, Error>>>,
    pub(super) timings: Timings,
}

// === impl Timings ===

impl Timings {
    /// Takes in the stages of one item's flight.
    pub(super) fn take_in(&mut self, stages: Stages) {
        self.disk = self.disk.max(stages.disk);
        self.preprocess = self.preprocess.max(stages.preprocess);
        self.queue = self.queue.max(stages.queue);
        self.inference = self.inference.max(stages.inference);
    }
}

// === impl Answers ===

impl Answers {
    pub(super) fn of(items: usize) -> Self {
        let slots = std::iter::repeat_with(|| None).take(items).collect();
        Answers { slots, timings: Timings::default() }
    }

    pub(super) fn set(&mut self, index: usize, answer: Result<EmbeddedItem, Error>) {
        self.slots[index] = Some(answer);
    }

    pub(super) fn into_reply(self, dimensions: u32) -> Reply {
        let unanswered = || Err(Error::new(ErrorKind::WorkerLost, "the item was lost on its way"));
        let items = self.slots.into_iter().map(|slot| slot.unwrap_or_else(unanswered)).collect();
        Reply { dimensions, items, timings: self.timings }
    }
}
