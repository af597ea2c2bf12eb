//! From rows to vectors: a bounded queue, and threads that own engines. It knows neither callers nor caches: a row carries
//! what is to be done with its outcome.
//!
//! ```text
//! reserve ── prepare elsewhere ── submit ── lanes by length and class ── cut ── engine ── each row is told
//! ```
//! A free worker cuts the next run of what waits, so a run is larger the busier the workers are, and nobody waits for a
//! run to fill up unless `maxDelay` says so.

pub mod costs;
mod cut;
mod place;
mod queue;
mod together;
mod warm_up;
mod worker;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use embark_crds::contract::Batching;
use tokio::time::Instant;

use costs::{Costs, Measured};
pub use place::{Full, Place};
use queue::Queue;
pub use together::Together;
use worker::Workers;
pub use worker::give_way;

use crate::{
    embedding::Embedding,
    error::Error,
    flight::{Take, Wanted},
    input::Class,
    metrics::ModelMetrics,
    model::engine::{Engine, Row},
    trace::Trace,
};

/// A row that is to be computed, and who is told of it.
pub struct Job {
    /// What the engine reads.
    pub row: Row,
    /// Told of the outcome. Dropped without it when the row is lost.
    pub claim: Box<dyn Claim>,
}

/// Who wants a row computed.
pub trait Claim: Send {
    /// Begins it in a class, if it is still wanted.
    fn take(&self, class: Class) -> Take;

    /// Who wants it. Once nobody did, nobody ever will.
    fn wanted(&self) -> Wanted;

    /// The trace of the call that it is computed for.
    fn trace(&self) -> Trace {
        Trace::default()
    }

    /// Tells of the outcome, on the worker's thread; it must be quick.
    fn complete(self: Box<Self>, outcome: Outcome);
}

/// What became of a row.
#[derive(Debug)]
pub struct Outcome {
    /// Its vector, or why there is none.
    pub result: Result<Embedding, Error>,
    /// How long it waited for a worker.
    pub queued: Duration,
    /// How long its run took.
    pub ran: Duration,
}

/// Computes rows. Dropping it ends its threads once what waits is computed.
///
/// # Guarantees
/// Every accepted job is completed exactly once, or dropped when nobody wants it; no more rows, bytes and cost wait than
/// the limits allow; rows of the background class never keep one that is waited for from its place or its turn, but for
/// the runs under way.
pub struct Batcher {
    queue: Arc<Queue>,
    workers: Workers,
    together: Option<Together>,
    mixes_lengths: bool,
}

/// A row in the queue.
struct Waiting {
    job: Job,
    cost: u64,
    since: Instant,
    /// Given back when it is dropped.
    place: Place,
}

/// How busy the workers are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Threads that compute.
    pub workers: usize,
    /// Runs under way.
    pub running: usize,
    /// How long one worker alone would take for what waits.
    pub backlog: Duration,
    /// The longest that a run may take.
    pub longest_run: Duration,
}

/// What a batcher is made for.
#[derive(Clone, Copy, Debug)]
pub struct BatcherConfig {
    /// Threads that compute.
    pub workers: NonZeroUsize,
    /// The limits.
    pub batching: Batching,
    /// The length of the longest row.
    pub longest: u32,
}

// === impl Batcher ===

impl Batcher {
    /// Starts threads, each with an engine of its own. Blocks while it measures what runs cost, for no longer than half a
    /// second and one run, and compares vectors in five short ones; `sample` makes a row of a length.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(
        mut engine: Box<dyn Engine>,
        config: BatcherConfig,
        sample: impl Fn(u32) -> Row,
        metrics: ModelMetrics,
    ) -> std::io::Result<Self> {
        let mut costs = Costs::default();
        warm_up::measure(&mut *engine, &config, &sample, &mut costs);
        // Where no run has rows of two lengths, none of them is padded.
        let together = match engine.mixes_lengths() {
            true => together::compare(&mut *engine, config.longest, sample),
            false => None,
        };
        if let Some(together) = together {
            metrics.padding_differs(together.padded);
        }
        let needs_equal_lengths = together.is_some_and(Together::needs_equal_lengths);
        let mixes_lengths = engine.mixes_lengths() && !needs_equal_lengths;
        let queue = Queue::new(&config, mixes_lengths, costs, metrics.batch.clone());
        let queue = Arc::new(queue);
        let workers = Workers::start(&*engine, config.workers, &queue, &metrics)?;
        Ok(Batcher { queue, workers, together, mixes_lengths })
    }

    /// How much vectors depend on what is computed with them; `None`: rows have one length, or it could not be found out.
    pub fn together(&self) -> Option<Together> {
        self.together
    }

    /// Whether rows of different lengths share runs.
    pub fn mixes_lengths(&self) -> bool {
        self.mixes_lengths
    }

    /// Takes a place among the rows that wait, for an input of `bytes`, before the work that comes ahead of the queue is
    /// done. The place is given back when its job is taken by a worker, or when it is dropped.
    ///
    /// # Errors
    /// As many rows or bytes wait as may.
    pub fn reserve(&self, class: Class, bytes: usize) -> Result<Place, Full> {
        self.queue.reserve(class, bytes)
    }

    /// Makes a place one of the background's: nobody waits for what has it any more.
    ///
    /// # Errors
    /// The background has as many as it may; the place stays what it was.
    pub fn put_behind(&self, place: &mut Place) -> Result<(), Full> {
        self.queue.demote(place)
    }

    /// Queues a job in its place.
    ///
    /// # Errors
    /// The cost of what waits is at its limit, or the batcher is closed; the job is given back.
    pub fn submit(&self, place: Place, job: Job) -> Result<(), (Full, Job)> {
        self.queue.push(place, job)
    }

    /// What runs were measured to take.
    pub fn costs(&self) -> Vec<Measured> {
        self.queue.costs.lock().measured()
    }

    /// How busy the workers are, and what waits for them.
    pub fn load(&self) -> Load {
        self.queue.load()
    }

    /// How long a row of a class that comes now is expected to wait.
    pub fn wait(&self, class: Class) -> Duration {
        self.queue.wait(class)
    }

    /// For how long there has been something to do and nothing was done, when that is longer than any run may take.
    pub fn stalled(&self) -> Option<Duration> {
        self.queue.stalled(Instant::now())
    }

    /// Whether threads that failed can be replaced no more: only another process may help.
    pub fn is_hopeless(&self) -> bool {
        self.workers.are_hopeless()
    }

    /// Refuses further jobs, and ends the threads once what waits is computed. Blocks until then.
    pub fn close(&self) {
        self.queue.close();
        self.workers.join();
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.queue.close();
    }
}

// === impl Load ===

impl Load {
    /// How long what waits will take, with all workers on it.
    pub fn wait(&self) -> Duration {
        self.backlog.div_f64(self.workers.max(1) as f64)
    }

    /// 1 when all workers compute and nothing waits, and 1 more for each longest allowed run that waits for each of them.
    pub fn saturation(&self) -> f64 {
        let waiting = self.backlog.as_secs_f64() / self.longest_run.as_secs_f64().max(1e-3);
        (self.running as f64 + waiting) / self.workers.max(1) as f64
    }
}

#[cfg(test)]
mod tests;
