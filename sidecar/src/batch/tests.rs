//! The queue and its workers with an engine that obeys the test.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::{embedding::Vector, error::ErrorKind};

/// Gives the first id of a row as its vector; panics for id 13; waits while the gate is shut.
#[derive(Clone, Default)]
struct Obedient {
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
    entered: AtomicUsize,
}

impl Gate {
    fn set_shut(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.entered.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_all();
        let mut shut = self.shut.lock();
        while *shut {
            self.changed.wait(&mut shut);
        }
    }

    /// Waits until so many runs have begun.
    fn wait_entered(&self, runs: usize) {
        let mut shut = self.shut.lock();
        while self.entered.load(Ordering::SeqCst) < runs {
            self.changed.wait_for(&mut shut, Duration::from_millis(5));
        }
    }
}

impl Engine for Obedient {
    fn run(&mut self, rows: &[Row]) -> Result<Vec<Result<Embedding, Error>>, Error> {
        self.gate.pass();
        Ok(rows.iter().map(|row| Ok(embedding(row))).collect())
    }

    fn fork(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }
}

fn embedding(row: &Row) -> Embedding {
    assert_ne!(row.ids[0], 13, "on purpose");
    #[expect(clippy::cast_precision_loss, reason = "ids of the tests are small")]
    let value = row.ids[0] as f32;
    Embedding { vector: Vector::from_values(&[value]), tokens: 1, truncated: row.truncated }
}

struct Fixture {
    batcher: Batcher,
    gate: Arc<Gate>,
    metrics: ModelMetrics,
    remembered: Arc<AtomicUsize>,
}

impl Fixture {
    fn new(max_items: u32, max_cost: u32) -> Self {
        let engine = Obedient::default();
        let gate = Arc::clone(&engine.gate);
        let metrics = ModelMetrics::detached();
        let batching = Batching {
            max_items: 1,
            max_tokens: 4096,
            max_duration: Duration::from_millis(50),
            max_delay: Duration::ZERO,
            queue_max_items: max_items,
            queue_max_tokens: max_cost,
        };
        let (engine, count) = (Box::new(engine), NonZeroUsize::MIN);
        let batcher = Batcher::start(engine, count, &batching, metrics.clone()).unwrap();
        Fixture { batcher, gate, metrics, remembered: Arc::default() }
    }

    fn job(&self, ids: &[u32]) -> (Job, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let remembered = Arc::clone(&self.remembered);
        let remember = Box::new(move |_: &Embedding| {
            remembered.fetch_add(1, Ordering::SeqCst);
        });
        (Job { row: Row { ids: ids.to_vec(), truncated: false }, remember, reply }, outcome)
    }

    fn submit(&self, ids: &[u32]) -> Result<oneshot::Receiver<Outcome>, Full> {
        let (job, outcome) = self.job(ids);
        self.batcher.submit(self.batcher.reserve()?, job)?;
        Ok(outcome)
    }
}

fn value(outcome: oneshot::Receiver<Outcome>) -> Result<f32, ErrorKind> {
    let outcome = outcome.blocking_recv().expect("answered");
    let embedding = outcome.result.map_err(|error| error.kind)?;
    Ok(embedding.vector.values().next().expect("a value"))
}

#[test]
fn a_row_is_computed_and_remembered() {
    let fixture = Fixture::new(4, 1000);
    assert_eq!(value(fixture.submit(&[7]).unwrap()), Ok(7.0));
    assert_eq!(fixture.remembered.load(Ordering::SeqCst), 1);
}

#[test]
fn no_more_rows_wait_than_may() {
    let fixture = Fixture::new(2, 1000);
    fixture.gate.set_shut(true);
    let running = fixture.submit(&[1]).unwrap();
    fixture.gate.wait_entered(1);
    let waiting = [fixture.submit(&[2]).unwrap(), fixture.submit(&[3]).unwrap()];
    assert_eq!(fixture.submit(&[4]).unwrap_err(), Full::Items(2));
    fixture.gate.set_shut(false);
    assert_eq!(value(running), Ok(1.0));
    assert_eq!(waiting.map(value), [Ok(2.0), Ok(3.0)]);
    assert_eq!(value(fixture.submit(&[5]).unwrap()), Ok(5.0));
}

#[test]
fn a_place_that_is_not_used_is_given_back() {
    let fixture = Fixture::new(1, 1000);
    let place = fixture.batcher.reserve().unwrap();
    assert_eq!(fixture.batcher.reserve().unwrap_err(), Full::Items(1));
    drop(place);
    assert!(fixture.batcher.reserve().is_ok());
}

#[test]
fn no_more_cost_waits_than_may_but_one_row_always_may() {
    let fixture = Fixture::new(10, 8);
    fixture.gate.set_shut(true);
    let running = fixture.submit(&[1]).unwrap();
    fixture.gate.wait_entered(1);
    let large = fixture.submit(&[2; 20]).unwrap();
    assert!(matches!(fixture.submit(&[3]).unwrap_err(), Full::Cost(21, 8)));
    fixture.gate.set_shut(false);
    assert_eq!((value(running), value(large)), (Ok(1.0), Ok(2.0)));
}

#[test]
fn a_row_that_nobody_waits_for_is_not_computed() {
    let fixture = Fixture::new(10, 1000);
    fixture.gate.set_shut(true);
    let running = fixture.submit(&[1]).unwrap();
    fixture.gate.wait_entered(1);
    drop(fixture.submit(&[2]).unwrap());
    let last = fixture.submit(&[3]).unwrap();
    fixture.gate.set_shut(false);
    assert_eq!((value(running), value(last)), (Ok(1.0), Ok(3.0)));
    assert_eq!(fixture.gate.entered.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.metrics.cancelled.get(), 1);
}

#[test]
fn a_row_whose_caller_leaves_during_its_run_is_remembered() {
    let fixture = Fixture::new(10, 1000);
    fixture.gate.set_shut(true);
    let running = fixture.submit(&[1]).unwrap();
    fixture.gate.wait_entered(1);
    drop(running);
    let last = fixture.submit(&[2]).unwrap();
    fixture.gate.set_shut(false);
    assert_eq!(value(last), Ok(2.0));
    assert_eq!(fixture.remembered.load(Ordering::SeqCst), 2);
}

#[test]
fn a_panic_costs_its_row_alone() {
    let fixture = Fixture::new(10, 1000);
    assert_eq!(value(fixture.submit(&[13]).unwrap()), Err(ErrorKind::WorkerLost));
    assert_eq!(value(fixture.submit(&[7]).unwrap()), Ok(7.0));
    assert_eq!(fixture.metrics.worker_restarts.get(), 1);
}

#[test]
fn closing_computes_what_waits_and_refuses_the_rest() {
    let fixture = Fixture::new(10, 1000);
    fixture.gate.set_shut(true);
    let outcomes: Vec<_> = (1..4).map(|id| fixture.submit(&[id]).unwrap()).collect();
    let place = fixture.batcher.reserve().unwrap();
    fixture.gate.set_shut(false);
    fixture.batcher.close();
    let values: Vec<_> = outcomes.into_iter().map(value).collect();
    assert_eq!(values, [Ok(1.0), Ok(2.0), Ok(3.0)]);
    let (job, _) = fixture.job(&[4]);
    assert_eq!(fixture.batcher.submit(place, job).unwrap_err(), Full::Closed);
}
