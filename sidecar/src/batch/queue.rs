//! The rows that wait. Bounded twice: in rows, by places taken beforehand, and in cost, when a row's length is known. Full:
//! the row is refused.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use embark_crds::contract::{Batching, cost};
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

use super::{Job, Waiting};
use crate::metrics::ModelMetrics;

/// Why a row may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many rows wait as may.
    #[error("{0} rows wait already, the most that may (spec.batching.queue.maxItems)")]
    Items(u32),
    /// The rows that wait cost as much as may.
    #[error(
        "the rows that wait have a cost of {0} with this one, over the limit of {1} (spec.batching.queue.maxTokens)"
    )]
    Cost(u64, u64),
    /// The process is going away.
    #[error("the server is draining")]
    Closed,
}

/// The right of one row to wait.
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

pub(super) struct Queue {
    taken: Arc<AtomicU32>,
    max_items: u32,
    max_cost: u64,
    waiting: Mutex<State>,
    changed: Condvar,
    metrics: ModelMetrics,
}

#[derive(Default)]
struct State {
    rows: VecDeque<Waiting>,
    cost: u64,
    closed: bool,
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(batching: &Batching, metrics: ModelMetrics) -> Self {
        Queue {
            taken: Arc::default(),
            max_items: batching.queue_max_items,
            max_cost: batching.queue_max_tokens.into(),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            metrics,
        }
    }

    pub(super) fn reserve(&self) -> Result<Place, Full> {
        let more = |taken: u32| (taken < self.max_items).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Place(Arc::clone(&self.taken))),
            Err(_) => Err(Full::Items(self.max_items)),
        }
    }

    pub(super) fn push(&self, place: Place, job: Job) -> Result<(), Full> {
        let cost = cost(1, job.row.ids.len() as u64);
        let mut state = self.waiting.lock();
        if state.closed {
            return Err(Full::Closed);
        }
        // A row that costs more than the whole queue may waits alone, rather than never.
        if state.cost > 0 && state.cost + cost > self.max_cost {
            return Err(Full::Cost(state.cost + cost, self.max_cost));
        }
        state.cost += cost;
        state.rows.push_back(Waiting { job, cost, since: Instant::now(), place });
        self.measure(&state);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next row that somebody waits for; blocks until there is one. `None`: closed and empty.
    pub(super) fn pop(&self) -> Option<Waiting> {
        let mut state = self.waiting.lock();
        loop {
            match state.rows.pop_front() {
                Some(row) => {
                    state.cost -= row.cost;
                    self.measure(&state);
                    if row.job.reply.is_closed() {
                        self.metrics.cancelled.inc();
                        continue;
                    }
                    return Some(row);
                }
                None if state.closed => return None,
                None => self.changed.wait(&mut state),
            }
        }
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.changed.notify_all();
    }

    fn measure(&self, state: &State) {
        self.metrics.queue_items.set(i64::try_from(state.rows.len()).unwrap_or(i64::MAX));
        self.metrics.queue_cost.set(i64::try_from(state.cost).unwrap_or(i64::MAX));
    }
}
