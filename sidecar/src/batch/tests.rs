//! The queue and its workers with an engine that obeys the test.

mod lines;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use tokio::sync::oneshot;

use super::*;
use crate::{embedding::Vector, error::ErrorKind, model::engine::Threads};

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
    /// Whether there are no more engines.
    is_barren: AtomicBool,
    /// The rows of each run.
    runs: Mutex<Vec<Vec<u32>>>,
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
    fn run(&mut self, rows: &[&Row], _: Threads) -> Result<Vec<Result<Embedding, Error>>, Error> {
        // Nothing is measured: without knowledge, all that waits is merged.
        if rows[0].tokens()[0] == SAMPLE {
            return Err(Error::new(ErrorKind::Inference, "not to be measured"));
        }
        self.gate.runs.lock().push(rows.iter().map(|row| row.tokens()[0]).collect());
        self.gate.pass();
        Ok(rows.iter().map(|row| Ok(embedding(row))).collect())
    }

    fn mixes_lengths(&self) -> bool {
        true
    }

    fn fork(&self) -> Box<dyn Engine> {
        assert!(!self.gate.is_barren.load(Ordering::SeqCst), "no more of it");
        Box::new(self.clone())
    }
}

/// The id of rows that are measured.
const SAMPLE: u32 = 0;

fn embedding(row: &Row) -> Embedding {
    assert_ne!(row.tokens()[0], 13, "on purpose");
    #[expect(clippy::cast_precision_loss, reason = "ids of the tests are small")]
    let value = row.tokens()[0] as f32;
    Embedding { vector: Vector::from_values(&[value]), tokens: 1, truncated: row.truncated }
}

/// Wants a row as long as its test does.
struct Wish {
    class: Arc<Mutex<Option<Class>>>,
    reply: oneshot::Sender<Outcome>,
}

impl Claim for Wish {
    fn take(&self, class: Class) -> Take {
        match *self.class.lock() {
            None => Take::Drop,
            Some(Class::Background) if class == Class::Waiting => Take::Later,
            Some(_) => Take::Begin,
        }
    }

    fn wanted(&self) -> Wanted {
        self.class.lock().map_or(Wanted::ByNobody, Wanted::In)
    }

    fn complete(self: Box<Self>, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

/// A row that was submitted.
struct Submitted {
    wanted: Arc<Mutex<Option<Class>>>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Submitted {
    fn value(self) -> Result<f32, ErrorKind> {
        let outcome = self.outcome.blocking_recv().expect("answered");
        let embedding = outcome.result.map_err(|error| error.kind)?;
        Ok(embedding.vector.values().next().expect("a value"))
    }
}

struct Fixture {
    batcher: Batcher,
    gate: Arc<Gate>,
    metrics: ModelMetrics,
}

fn limits(queue_max_items: u32, queue_max_tokens: u32) -> Batching {
    Batching {
        max_items: 8,
        max_tokens: 4096,
        max_duration: Duration::from_secs(50),
        max_delay: Duration::ZERO,
        queue_max_items,
        queue_max_tokens,
    }
}

impl Fixture {
    fn new(batching: Batching) -> Self {
        let engine = Obedient::default();
        let gate = Arc::clone(&engine.gate);
        let metrics = ModelMetrics::detached();
        let config = BatcherConfig { workers: NonZeroUsize::MIN, batching, longest: 256 };
        let sample = |length: u32| Row::of_tokens(vec![SAMPLE; length as usize]);
        let batcher = Batcher::start(Box::new(engine), config, sample, metrics.clone()).unwrap();
        Fixture { batcher, gate, metrics }
    }

    fn job(class: Class, ids: &[u32]) -> (Job, Submitted) {
        let (reply, outcome) = oneshot::channel();
        let wanted = Arc::new(Mutex::new(Some(class)));
        let claim = Box::new(Wish { class: Arc::clone(&wanted), reply });
        (Job { row: Row::of_tokens(ids.to_vec()), claim }, Submitted { wanted, outcome })
    }

    fn submit_in(&self, class: Class, ids: &[u32]) -> Result<Submitted, Full> {
        let (job, submitted) = Self::job(class, ids);
        let place = self.batcher.reserve(class, ids.len())?;
        self.batcher.submit(place, job).map_err(|(full, _)| full)?;
        Ok(submitted)
    }

    fn submit(&self, ids: &[u32]) -> Result<Submitted, Full> {
        self.submit_in(Class::Waiting, ids)
    }

    /// Keeps the one worker busy with a row until the gate is open.
    fn busy(&self) -> Submitted {
        self.gate.set_shut(true);
        let running = self.submit(&[1]).unwrap();
        self.gate.wait_entered(1);
        running
    }

    fn runs(&self) -> Vec<Vec<u32>> {
        self.gate.runs.lock().clone()
    }
}

fn error(submitted: Result<Submitted, Full>) -> Full {
    submitted.map(drop).unwrap_err()
}

#[test]
fn what_waits_while_a_run_is_under_way_is_run_together() {
    let fixture = Fixture::new(limits(10, 1000));
    let running = fixture.busy();
    let waiting: Vec<_> = (2..6).map(|id| fixture.submit(&[id]).unwrap()).collect();
    fixture.gate.set_shut(false);
    assert_eq!(running.value(), Ok(1.0));
    let values: Vec<_> = waiting.into_iter().map(Submitted::value).collect();
    assert_eq!(values, [Ok(2.0), Ok(3.0), Ok(4.0), Ok(5.0)]);
    let runs = fixture.runs();
    assert_eq!(runs.concat(), [1, 2, 3, 4, 5]);
    assert!(runs.len() < 5, "{runs:?}");
}

#[test]
fn rows_of_other_lengths_are_not_run_together() {
    let fixture = Fixture::new(limits(10, 100_000));
    let running = fixture.busy();
    let waiting: Vec<_> = [2, 3, 4, 5]
        .map(|id| fixture.submit(&vec![id; if id % 2 == 0 { 8 } else { 128 }]).unwrap())
        .into();
    fixture.gate.set_shut(false);
    assert_eq!(running.value(), Ok(1.0));
    assert!(waiting.into_iter().all(|waiting| waiting.value().is_ok()));
    let mut runs = fixture.runs().split_off(1);
    runs.sort();
    assert!(runs.iter().flatten().count() == 4, "{runs:?}");
    for run in runs {
        assert!(run.iter().all(|id| id % 2 == run[0] % 2), "{run:?}");
    }
}

#[test]
fn background_rows_run_when_nothing_is_waited_for() {
    let fixture = Fixture::new(limits(20, 1000));
    let running = fixture.busy();
    let background: Vec<_> =
        (20..24).map(|id| fixture.submit_in(Class::Background, &[id]).unwrap()).collect();
    let waiting: Vec<_> = (2..4).map(|id| fixture.submit(&[id]).unwrap()).collect();
    fixture.gate.set_shut(false);
    let all = [running].into_iter().chain(background).chain(waiting);
    assert!(all.into_iter().all(|row| row.value().is_ok()));
    let order: Vec<u32> = fixture.runs().concat();
    assert_eq!(order, [1, 2, 3, 20, 21, 22, 23]);
}

#[test]
fn a_row_that_nobody_waits_for_any_more_goes_behind_those_that_are_waited_for() {
    let fixture = Fixture::new(limits(20, 1000));
    let running = fixture.busy();
    let left = fixture.submit(&[20]).unwrap();
    let waiting = fixture.submit(&[2]).unwrap();
    *left.wanted.lock() = Some(Class::Background);
    fixture.gate.set_shut(false);
    assert!([running, left, waiting].into_iter().all(|row| row.value().is_ok()));
    assert_eq!(fixture.runs().concat(), [1, 2, 20]);
}

#[test]
fn no_more_rows_wait_than_may_and_the_background_leaves_room() {
    let fixture = Fixture::new(limits(4, 1000));
    let running = fixture.busy();
    let background: Vec<_> =
        (20..22).map(|id| fixture.submit_in(Class::Background, &[id]).unwrap()).collect();
    assert_eq!(error(fixture.submit_in(Class::Background, &[22])), Full::Items(2));
    let waiting: Vec<_> = (2..4).map(|id| fixture.submit(&[id]).unwrap()).collect();
    assert_eq!(error(fixture.submit(&[4])), Full::Items(4));
    fixture.gate.set_shut(false);
    let all = [running].into_iter().chain(background).chain(waiting);
    assert!(all.into_iter().all(|row| row.value().is_ok()));
    assert_eq!(fixture.submit(&[5]).unwrap().value(), Ok(5.0));
}

#[test]
fn a_place_that_is_not_used_is_given_back() {
    let fixture = Fixture::new(limits(1, 1000));
    let place = fixture.batcher.reserve(Class::Waiting, 5).unwrap();
    assert_eq!(fixture.batcher.reserve(Class::Waiting, 5).unwrap_err(), Full::Items(1));
    drop(place);
    assert!(fixture.batcher.reserve(Class::Waiting, 5).is_ok());
}

#[test]
fn no_more_bytes_wait_than_may_but_one_input_always_may() {
    let fixture = Fixture::new(limits(10, 1000));
    let large = fixture.batcher.reserve(Class::Waiting, 1 << 30).unwrap();
    let refused = fixture.batcher.reserve(Class::Waiting, 1).unwrap_err();
    assert_eq!(refused, Full::Bytes(1 << 30));
    drop(large);
    assert!(fixture.batcher.reserve(Class::Waiting, 1).is_ok());
}

#[test]
fn no_more_cost_waits_than_may_but_one_row_always_may() {
    let fixture = Fixture::new(limits(10, 8));
    let running = fixture.busy();
    let large = fixture.submit(&[2; 20]).unwrap();
    assert!(matches!(error(fixture.submit(&[3])), Full::Cost(21, 8)));
    fixture.gate.set_shut(false);
    assert_eq!((running.value(), large.value()), (Ok(1.0), Ok(2.0)));
}

#[test]
fn a_row_that_nobody_wants_is_not_computed_and_makes_room() {
    let fixture = Fixture::new(limits(2, 1000));
    let running = fixture.busy();
    let left = fixture.submit(&[2]).unwrap();
    *left.wanted.lock() = None;
    let waiting = [fixture.submit(&[3]).unwrap(), fixture.submit(&[4]).unwrap()];
    fixture.gate.set_shut(false);
    assert_eq!(running.value(), Ok(1.0));
    assert!(waiting.into_iter().all(|row| row.value().is_ok()));
    assert_eq!(fixture.runs().concat(), [1, 3, 4]);
    assert_eq!(fixture.metrics.batch.cancelled.get(), 1);
    assert!(left.outcome.blocking_recv().is_err(), "it is told of nothing");
}

#[test]
fn a_panic_costs_its_row_alone() {
    let fixture = Fixture::new(limits(10, 1000));
    let running = fixture.busy();
    let together: Vec<_> = [2, 13, 3].map(|id| fixture.submit(&[id]).unwrap()).into();
    fixture.gate.set_shut(false);
    assert_eq!(running.value(), Ok(1.0));
    let values: Vec<_> = together.into_iter().map(Submitted::value).collect();
    assert_eq!(values, [Ok(2.0), Err(ErrorKind::WorkerLost), Ok(3.0)]);
    // Once together and once alone.
    assert_eq!(fixture.metrics.batch.worker_restarts.get(), 2);
}

#[test]
fn an_engine_is_replaced_as_soon_as_it_can_be_and_three_failures_are_told() {
    let fixture = Fixture::new(limits(10, 1000));
    let value = |id| fixture.submit(&[id]).unwrap().value();
    fixture.gate.is_barren.store(true, Ordering::SeqCst);
    assert_eq!(value(13), Err(ErrorKind::WorkerLost), "the engine panics");
    for _ in 0..2 {
        assert_eq!(value(2), Err(ErrorKind::WorkerLost), "there is no other");
        assert!(!fixture.batcher.is_hopeless());
    }
    assert_eq!(value(2), Err(ErrorKind::WorkerLost));
    assert!(fixture.batcher.is_hopeless());
    fixture.gate.is_barren.store(false, Ordering::SeqCst);
    assert_eq!(value(2), Ok(2.0));
}

#[test]
fn a_run_waits_for_more_rows_as_long_as_it_may_and_no_longer() {
    let delay = Duration::from_secs(3600);
    let fixture = Fixture::new(Batching { max_delay: delay, max_items: 3, ..limits(10, 1000) });
    let rows: Vec<_> = (1..4).map(|id| fixture.submit(&[id]).unwrap()).collect();
    assert!(rows.into_iter().all(|row| row.value().is_ok()));
    assert_eq!(fixture.runs(), [vec![1, 2, 3]]);
    let delay = Duration::from_millis(1);
    let fixture = Fixture::new(Batching { max_delay: delay, ..limits(10, 1000) });
    assert_eq!(fixture.submit(&[7]).unwrap().value(), Ok(7.0));
}

#[test]
fn closing_computes_what_waits_and_refuses_the_rest() {
    let fixture = Fixture::new(limits(10, 1000));
    fixture.gate.set_shut(true);
    let rows: Vec<_> = (1..4).map(|id| fixture.submit(&[id]).unwrap()).collect();
    let place = fixture.batcher.reserve(Class::Waiting, 1).unwrap();
    fixture.gate.set_shut(false);
    fixture.batcher.close();
    let values: Vec<_> = rows.into_iter().map(Submitted::value).collect();
    assert_eq!(values, [Ok(1.0), Ok(2.0), Ok(3.0)]);
    let (job, _row) = Fixture::job(Class::Waiting, &[4]);
    let refused = fixture.batcher.submit(place, job).map_err(|(full, _)| full);
    assert_eq!(refused.unwrap_err(), Full::Closed);
}

#[test]
fn a_queue_that_stands_still_is_found_and_one_that_moves_or_is_empty_is_not() {
    let fixture = Fixture::new(limits(32, 4096));
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    assert_eq!(fixture.batcher.queue.stalled(later(3600)), None, "nothing was asked for");
    let busy = fixture.busy();
    assert_eq!(fixture.batcher.queue.stalled(later(9)), None);
    let still = fixture.batcher.queue.stalled(later(12)).expect("its one run does not end");
    assert!(still >= Duration::from_secs(11), "{still:?}");
    fixture.gate.set_shut(false);
    busy.value().unwrap();
    fixture.batcher.close();
    assert_eq!(fixture.batcher.queue.stalled(later(3600)), None, "all of it is done");
}
