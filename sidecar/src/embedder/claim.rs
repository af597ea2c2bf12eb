//! Who wants rows computed: a flight, by the one row of its input or by the windows of a long text. It lands when its last
//! window is there, or when the first one fails.

use std::{sync::Arc, time::Duration};

use embark_crds::contract::Normalization;
use parking_lot::Mutex;

use crate::{
    batch::{Claim, Outcome},
    cache::Cache,
    embedding::Embedding,
    flight::{Landed, Lead, Origin, Stages, Take, Wanted},
    input::Class,
    model::pooling,
    trace::Trace,
};

/// A flight on its way through the queue.
pub(super) struct RowClaim {
    pub(super) lead: Lead,
    pub(super) cache: Arc<Cache>,
    pub(super) stages: Stages,
    pub(super) trace: Trace,
    pub(super) unknown_category: bool,
}

/// A window of a text: one row of several that one flight waits for.
struct WindowClaim {
    whole: Arc<Whole>,
    place: usize,
}

/// The windows of a text.
struct Whole {
    normalization: Normalization,
    windows: usize,
    state: Mutex<State>,
}

struct State {
    /// `None`: it has landed.
    claim: Option<RowClaim>,
    vectors: Vec<Option<Embedding>>,
    missing: usize,
    /// Whether a window is being computed, or was.
    has_begun: bool,
    /// Of the slowest so far.
    queued: Duration,
    ran: Duration,
}

// === impl RowClaim ===

impl RowClaim {
    /// As many claims as the input has rows.
    pub(super) fn split(self, rows: usize, normalization: Normalization) -> Vec<Box<dyn Claim>> {
        if rows == 1 {
            return vec![Box::new(self)];
        }
        let state = State {
            claim: Some(self),
            vectors: vec![None; rows],
            missing: rows,
            has_begun: false,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
        };
        let whole = Arc::new(Whole { normalization, windows: rows, state: Mutex::new(state) });
        let window = |place| -> Box<dyn Claim> {
            Box::new(WindowClaim { whole: Arc::clone(&whole), place })
        };
        (0..rows).map(window).collect()
    }

    fn land(self, outcome: Outcome, chunks: usize) {
        let RowClaim { lead, cache, stages, trace: _, unknown_category } = self;
        let Outcome { result, queued, ran } = outcome;
        let landing = result.map(|embedding| {
            let operation = lead.operation();
            let mut entry = operation.entry(&embedding);
            entry.unknown_category = unknown_category;
            entry.chunks = u16::try_from(chunks).unwrap_or(u16::MAX);
            if lead.is_stored() {
                cache.fill(&operation, *lead.key(), entry.clone());
            }
            let stages = Stages { queue: queued, inference: ran, ..stages };
            Landed { entry, origin: Origin::Computed, stages }
        });
        lead.land(landing);
    }
}

impl Claim for RowClaim {
    fn take(&self, class: Class) -> Take {
        self.lead.take(class)
    }

    fn wanted(&self) -> Wanted {
        self.lead.wanted()
    }

    fn trace(&self) -> Trace {
        self.trace.clone()
    }

    fn complete(self: Box<Self>, outcome: Outcome) {
        self.land(outcome, 0);
    }
}

// === impl WindowClaim ===

impl Claim for WindowClaim {
    fn take(&self, class: Class) -> Take {
        let mut state = self.whole.state.lock();
        let take = state.claim.as_ref().map_or(Take::Drop, |claim| claim.take(class));
        match take {
            Take::Begin => state.has_begun = true,
            // Who comes to wait for a text that has begun cannot call its other windows back from behind.
            Take::Later if state.has_begun => return Take::Begin,
            Take::Later | Take::Elsewhere | Take::Drop => {}
        }
        take
    }

    fn wanted(&self) -> Wanted {
        let state = self.whole.state.lock();
        state.claim.as_ref().map_or(Wanted::ByNobody, Claim::wanted)
    }

    /// The first window's runs stand for all.
    fn trace(&self) -> Trace {
        let state = self.whole.state.lock();
        let claim = state.claim.as_ref().filter(|_| self.place == 0);
        claim.map(Claim::trace).unwrap_or_default()
    }

    fn complete(self: Box<Self>, Outcome { result, queued, ran }: Outcome) {
        let mut state = self.whole.state.lock();
        state.queued = state.queued.max(queued);
        state.ran = state.ran.max(ran);
        let result = match result {
            Err(error) => Err(error),
            Ok(embedding) => {
                state.vectors[self.place] = Some(embedding);
                state.missing -= 1;
                if state.missing > 0 {
                    return;
                }
                let windows: Vec<Embedding> = state.vectors.drain(..).flatten().collect();
                pooling::mean_of_windows(&windows, self.whole.normalization)
            }
        };
        let (queued, ran) = (state.queued, state.ran);
        let Some(claim) = state.claim.take() else { return };
        // What follows takes other locks.
        drop(state);
        claim.land(Outcome { result, queued, ran }, self.whole.windows);
    }
}
