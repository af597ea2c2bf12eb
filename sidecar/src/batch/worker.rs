//! The threads that compute. Each owns an engine; a run that panics costs its row and its engine, not the thread's place:
//! it goes on with a fresh one.

use std::{
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Outcome, Waiting, queue::Queue};
use crate::{
    embedding::Embedding,
    error::{Error, ErrorKind},
    metrics::{ModelMetrics, Stage},
    model::engine::{Engine, Row},
};

pub(super) struct Workers(Mutex<Vec<JoinHandle<()>>>);

struct Worker {
    /// Never run: fresh engines are made of it.
    template: Box<dyn Engine>,
    engine: Box<dyn Engine>,
    queue: Arc<Queue>,
    metrics: ModelMetrics,
}

// === impl Workers ===

impl Workers {
    pub(super) fn start(
        engine: Box<dyn Engine>,
        count: NonZeroUsize,
        queue: Arc<Queue>,
        metrics: ModelMetrics,
    ) -> io::Result<Self> {
        let mut threads = Vec::new();
        for index in 0..count.get() {
            let worker = Worker {
                template: engine.fork(),
                engine: engine.fork(),
                queue: Arc::clone(&queue),
                metrics: metrics.clone(),
            };
            let name = format!("compute-{index}");
            threads.push(Builder::new().name(name).spawn(move || worker.work())?);
        }
        metrics.workers.set(i64::try_from(count.get()).unwrap_or(i64::MAX));
        Ok(Workers(Mutex::new(threads)))
    }

    pub(super) fn join(&self) {
        for thread in std::mem::take(&mut *self.0.lock()) {
            // A worker contains the panics of its runs; one of its own making is in the log already.
            let _ = thread.join();
        }
    }
}

// === impl Worker ===

impl Worker {
    fn work(mut self) {
        while let Some(waiting) = self.queue.pop() {
            self.compute(waiting);
        }
    }

    fn compute(&mut self, waiting: Waiting) {
        let Waiting { job, since, place, .. } = waiting;
        drop(place);
        let queued = since.elapsed();
        let started = Instant::now();
        let result = self.run(&job.row);
        let ran = started.elapsed();
        self.metrics.stage(Stage::Queue, queued.as_secs_f64());
        self.metrics.stage(Stage::Inference, ran.as_secs_f64());
        if let Ok(embedding) = &result {
            (job.remember)(embedding);
        }
        // An error means that nobody waits any more; the vector is remembered all the same.
        let _ = job.reply.send(Outcome { result, queued, ran });
    }

    fn run(&mut self, row: &Row) -> Result<Embedding, Error> {
        let engine = &mut self.engine;
        let run = catch_unwind(AssertUnwindSafe(|| engine.run(std::slice::from_ref(row))));
        let Ok(results) = run else {
            self.engine = self.template.fork();
            self.metrics.worker_restarts.inc();
            return Err(Error::new(ErrorKind::WorkerLost, "the computation panicked"));
        };
        results?.pop().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Inference, "the engine gave no vector for the row"))
        })
    }
}
