//! From rows to vectors: a bounded queue, and threads that own engines. It knows neither callers nor caches: a row carries
//! what is to be done with its outcome.

mod queue;
mod worker;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use embark_crds::contract::Batching;
use tokio::{sync::oneshot, time::Instant};

use queue::Queue;
pub use queue::{Full, Place};
use worker::Workers;

use crate::{
    embedding::Embedding,
    error::Error,
    metrics::ModelMetrics,
    model::engine::{Engine, Row},
};

/// A row that is to be computed, and what becomes of it.
pub struct Job {
    /// What the engine reads.
    pub row: Row,
    /// Told of the vector first, on the worker's thread, so that it is remembered even when nobody waits any more. It
    /// must be quick.
    pub remember: Box<dyn FnOnce(&Embedding) + Send>,
    /// Told of the outcome. A row whose receiver is gone before its run is not computed.
    pub reply: oneshot::Sender<Outcome>,
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
/// Every accepted job is answered exactly once, or dropped when nobody waits for it; no more rows and no more cost wait
/// than the limits allow.
pub struct Batcher {
    queue: Arc<Queue>,
    workers: Workers,
}

struct Waiting {
    job: Job,
    cost: u64,
    since: Instant,
    place: Place,
}

// === impl Batcher ===

impl Batcher {
    /// Starts `count` threads, each with an engine of its own.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(
        engine: Box<dyn Engine>,
        count: NonZeroUsize,
        batching: &Batching,
        metrics: ModelMetrics,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(batching, metrics.clone()));
        let workers = Workers::start(engine, count, Arc::clone(&queue), metrics)?;
        Ok(Batcher { queue, workers })
    }

    /// Takes a place among the rows that wait, before the work that comes ahead of the queue is done. The place is given
    /// back when its job is taken by a worker, or when it is dropped.
    ///
    /// # Errors
    /// As many rows wait as may.
    pub fn reserve(&self) -> Result<Place, Full> {
        self.queue.reserve()
    }

    /// Queues a job in its place.
    ///
    /// # Errors
    /// The cost of what waits is at its limit, or the batcher is closed; the job is dropped.
    pub fn submit(&self, place: Place, job: Job) -> Result<(), Full> {
        self.queue.push(place, job)
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

#[cfg(test)]
mod tests;
