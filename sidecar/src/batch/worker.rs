//! The threads that compute. Each owns an engine; a run that panics costs its row and its engine, not the thread: it goes
//! on with a fresh one, as soon as there is one to be had.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Job, Outcome, Waiting,
    queue::{Queue, Run},
};
use crate::{
    embedding::Embedding,
    error::{Error, ErrorKind},
    metrics::{ModelMetrics, Stage},
    model::engine::{Engine, Row, Threads},
    trace::{self, Trace},
};

/// What computes gives way to what answers: hits stay quick while every core computes.
const NICE: i32 = 10;
/// So many engines that could not be replaced within this time, and the process is said to be dead.
const MOST_FAILURES: usize = 3;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Workers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    replacements: Arc<Replacements>,
}

/// Tries to replace engines that failed.
#[derive(Default)]
struct Replacements {
    failed: Mutex<VecDeque<Instant>>,
    are_hopeless: AtomicBool,
}

struct Worker {
    /// Never run: fresh engines are made of it.
    template: Box<dyn Engine>,
    /// None after a panic, until there is another.
    engine: Option<Box<dyn Engine>>,
    queue: Arc<Queue>,
    metrics: ModelMetrics,
    replacements: Arc<Replacements>,
}

type Outcomes = Result<Vec<Result<Embedding, Error>>, Error>;

// === impl Workers ===

impl Workers {
    pub(super) fn start(
        engine: &dyn Engine,
        count: NonZeroUsize,
        queue: &Arc<Queue>,
        metrics: &ModelMetrics,
    ) -> io::Result<Self> {
        let (mut threads, replacements) = (Vec::new(), Arc::<Replacements>::default());
        for index in 0..count.get() {
            let worker = Worker {
                template: engine.fork(),
                engine: Some(engine.fork()),
                queue: Arc::clone(queue),
                metrics: metrics.clone(),
                replacements: Arc::clone(&replacements),
            };
            let name = format!("compute-{index}");
            threads.push(Builder::new().name(name).spawn(move || worker.work())?);
        }
        metrics.batch.workers.set(i64::try_from(count.get()).unwrap_or(i64::MAX));
        Ok(Workers { threads: Mutex::new(threads), replacements })
    }

    /// Whether engines that failed can be replaced no more: only another process may help.
    pub(super) fn are_hopeless(&self) -> bool {
        self.replacements.are_hopeless.load(Ordering::Acquire)
    }

    pub(super) fn join(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A worker contains the panics of its runs; one of its own making is in the log already.
            let _ = thread.join();
        }
    }
}

// === impl Worker ===

impl Worker {
    fn work(mut self) {
        give_way();
        while let Some(run) = self.queue.next() {
            // Whatever fails beside the engine costs the run: its rows are told when they are dropped.
            if catch_unwind(AssertUnwindSafe(|| self.compute(run))).is_err() {
                self.metrics.batch.worker_restarts.inc();
            }
            self.queue.finish();
        }
    }

    fn compute(&mut self, run: Run) {
        let Run { rows, is_alone } = run;
        // Their places are others' from here on.
        let taken = |Waiting { job, since, .. }: Waiting| (job, since.elapsed());
        let (jobs, queued): (Vec<Job>, Vec<Duration>) = rows.into_iter().map(taken).unzip();
        let threads = if is_alone { Threads::All } else { Threads::One };
        let started = Instant::now();
        let outcomes = self.run(&jobs, threads);
        let ran = started.elapsed();
        self.metrics.stage(Stage::Inference, ran.as_secs_f64());
        self.metrics.batch.busy.inc_by(ran.as_secs_f64());
        let waited = queued.iter().sum::<Duration>();
        self.metrics.batch.queue_wait.inc_by(waited.as_secs_f64());
        let traces = jobs.iter().zip(&queued).map(|(job, queued)| (job.claim.trace(), *queued));
        let traces: Vec<(Trace, Duration)> = traces.filter(|(trace, _)| trace.is_on()).collect();
        let run = trace::Run { ended: trace::now(), took: ran, rows: jobs.len() };
        for ((job, queued), result) in jobs.into_iter().zip(queued).zip(outcomes) {
            self.metrics.stage(Stage::Queue, queued.as_secs_f64());
            job.claim.complete(Outcome { result, queued, ran });
        }
        // Nobody waits for this.
        let rows = traces.iter().map(|(trace, queued)| trace::Row { trace, queued: *queued });
        Trace::run(rows, run);
    }

    /// As many outcomes as rows.
    fn run(&mut self, jobs: &[Job], threads: Threads) -> Vec<Result<Embedding, Error>> {
        let inputs: Vec<&Row> = jobs.iter().map(|job| &job.row).collect();
        let started = Instant::now();
        match self.attempt(&inputs, threads) {
            Ok(outcomes) => {
                self.note(&inputs, threads, started.elapsed());
                outcomes
            }
            Err(error) if inputs.len() == 1 => vec![Err(error)],
            // One of them is to blame; the others are not to suffer for it.
            Err(_) => inputs.into_iter().map(|row| self.alone(row)).collect(),
        }
    }

    fn alone(&mut self, row: &Row) -> Result<Embedding, Error> {
        let mut outcomes = self.attempt(&[row], Threads::One)?;
        outcomes.pop().unwrap_or_else(|| Err(no_vector()))
    }

    fn attempt(&mut self, rows: &[&Row], threads: Threads) -> Outcomes {
        let mut engine = self.engine.take().map_or_else(|| self.another(), Ok)?;
        let run = catch_unwind(AssertUnwindSafe(|| engine.run(rows, threads)));
        let Ok(outcomes) = run else {
            self.metrics.batch.worker_restarts.inc();
            return Err(Error::new(ErrorKind::WorkerLost, "the computation panicked"));
        };
        self.engine = Some(engine);
        let mut outcomes = outcomes?;
        outcomes.resize_with(rows.len(), || Err(no_vector()));
        Ok(outcomes)
    }

    /// An engine in place of one that panicked.
    fn another(&self) -> Result<Box<dyn Engine>, Error> {
        catch_unwind(AssertUnwindSafe(|| self.template.fork())).map_err(|_| {
            self.replacements.note_failure(Instant::now());
            Error::new(ErrorKind::WorkerLost, "the computation panicked, and cannot be begun anew")
        })
    }

    fn note(&self, rows: &[&Row], threads: Threads, took: Duration) {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let longest = rows.iter().map(|row| row.length()).max().unwrap_or(1);
        let useful: u64 = rows.iter().map(|row| u64::from(row.length())).sum();
        self.metrics.batch.ran(count, useful, u64::from(count) * u64::from(longest));
        // A run on all cores says nothing of one on one.
        if threads == Threads::One {
            self.queue.costs.lock().observe(count, longest, took.as_secs_f64());
        }
    }
}

// === impl Replacements ===

impl Replacements {
    fn note_failure(&self, now: Instant) {
        let mut failed = self.failed.lock();
        failed.push_back(now);
        failed.retain(|at| now.duration_since(*at) < FAILURES_WITHIN);
        if failed.len() >= MOST_FAILURES {
            self.are_hopeless.store(true, Ordering::Release);
        }
    }
}

// === free functions ===

/// Lowers the calling thread's priority: on Linux, that of a process is its thread's.
pub fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a compute thread keeps its priority");
    }
}

fn no_vector() -> Error {
    Error::new(ErrorKind::Inference, "the engine gave no vector for the row")
}
