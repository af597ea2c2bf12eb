//! A worker that runs rows as they came.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use embark_crds::contract::{Batching, cost};
use embark_sidecar::{
    batch::give_way,
    model::engine::{Engine, Row, Threads},
};

use crate::Waiter;

/// Rows that may wait: more than a measurement has.
const QUEUE: usize = 4096;

/// The worker. It ends with its handle.
pub(crate) struct FirstCome {
    queue: SyncSender<Waiting>,
    tokens: Arc<Tokens>,
}

/// A row, and who waits for it.
type Waiting = (Row, Waiter);

/// Tokens that were computed.
#[derive(Default)]
struct Tokens {
    useful: AtomicU64,
    all: AtomicU64,
}

struct Worker {
    engine: Box<dyn Engine>,
    batching: Batching,
    rows: Receiver<Waiting>,
    tokens: Arc<Tokens>,
}

// === impl FirstCome ===

impl FirstCome {
    pub(crate) fn start(engine: Box<dyn Engine>, batching: Batching) -> Self {
        let (queue, rows) = sync_channel(QUEUE);
        let tokens = Arc::<Tokens>::default();
        let worker = Worker { engine, batching, rows, tokens: Arc::clone(&tokens) };
        thread::spawn(move || worker.work());
        FirstCome { queue, tokens }
    }

    pub(crate) fn submit(&self, row: Row, waiter: Waiter) {
        assert!(self.queue.try_send((row, waiter)).is_ok(), "the queue is long enough");
    }

    /// The share of tokens that were no padding.
    pub(crate) fn useful(&self) -> f64 {
        let of = |tokens: &AtomicU64| tokens.load(Ordering::Relaxed) as f64;
        of(&self.tokens.useful) / of(&self.tokens.all)
    }
}

// === impl Worker ===

impl Worker {
    fn work(mut self) {
        give_way();
        let mut left = None;
        while let Some(first) = left.take().or_else(|| self.rows.recv().ok()) {
            let (run, over) = self.cut(first);
            left = over;
            let rows: Vec<&Row> = run.iter().map(|(row, _)| row).collect();
            self.note(&rows);
            let vectors = self.engine.run(&rows, Threads::One).expect("it runs");
            assert_eq!(vectors.len(), rows.len(), "one for each");
            for (_, waiter) in &run {
                waiter.end();
            }
        }
    }

    /// The rows that wait, up to the limits of a run; and the one that was too many.
    fn cut(&self, first: Waiting) -> (Vec<Waiting>, Option<Waiting>) {
        let mut longest = first.0.length();
        let mut run = vec![first];
        while run.len() < self.batching.max_items as usize
            && let Ok(next) = self.rows.try_recv()
        {
            longest = longest.max(next.0.length());
            if cost(run.len() as u64 + 1, longest.into()) > self.batching.max_tokens.into() {
                return (run, Some(next));
            }
            run.push(next);
        }
        (run, None)
    }

    fn note(&self, rows: &[&Row]) {
        let useful: u64 = rows.iter().map(|row| u64::from(row.length())).sum();
        let longest = rows.iter().map(|row| row.length()).max().unwrap_or(0);
        self.tokens.useful.fetch_add(useful, Ordering::Relaxed);
        self.tokens.all.fetch_add(u64::from(longest) * rows.len() as u64, Ordering::Relaxed);
    }
}
