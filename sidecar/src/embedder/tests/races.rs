//! Callers of the same keys at the same time: one computation a key, and none older than its caller allows.

use proptest::prelude::*;
use tokio::{runtime::Builder, task::JoinSet};

use super::*;

fn anew() -> Wishes {
    controlled(CacheControl { no_cache: true, ..CacheControl::default() })
}

fn controlled(cache: CacheControl) -> Wishes {
    Wishes { cache, ..Wishes::default() }
}

/// The run that an item's vector came from.
fn run_of(item: &EmbeddedItem) -> f32 {
    item.vector.values().nth(1).expect("the number of the run")
}

/// Looks into memory for an item, as a call does first.
fn look_up<'a>(fixture: &'a Fixture, answers: &mut Answers) -> (Call<'a>, Vec<Miss>) {
    let request = Request { items: vec![Ok(input(ITEM))], ..Request::default() };
    let call = fixture.embedder.begin(&fixture.model, &request).expect("it is ready");
    let misses = fixture.embedder.look_up(&call, request, answers);
    (call, misses)
}

#[tokio::test]
async fn an_item_that_lands_between_the_look_and_the_flight_is_not_computed_again() {
    let fixture = Fixture::new().await;
    let mut answers = Answers::of(1);
    let (call, misses) = look_up(&fixture, &mut answers);
    assert_eq!(misses.len(), 1);
    // Another caller comes and is answered meanwhile.
    assert_eq!(fixture.source(ITEM, Wishes::default()).await, Source::Computed);
    miss::answer(&fixture.embedder.pool, &call, misses, &mut answers).await;
    let answer = answers.into_reply(2).items.remove(0).unwrap();
    assert_eq!((answer.source, run_of(&answer)), (Source::HitMemory, 1.0));
    assert_eq!(fixture.gate.runs_of(ITEM), 1);
    fixture.settled().await;
}

#[tokio::test]
async fn an_item_that_lands_while_a_default_is_given_is_not_computed_again() {
    let fixture = Fixture::new().await;
    let mut answers = Answers::of(1);
    let (mut call, misses) = look_up(&fixture, &mut answers);
    call.terms.on_miss = terms::Miss::Default;
    assert_eq!(fixture.source(ITEM, Wishes::default()).await, Source::Computed);
    miss::answer(&fixture.embedder.pool, &call, misses, &mut answers).await;
    fixture.settled().await;
    assert_eq!(fixture.gate.runs_of(ITEM), 1);
}

/// A model that has the item on disk and not in memory.
async fn with_item_on_disk(folder: &Path) -> Fixture {
    let first = Step::Disk.fixture(folder).await;
    assert_eq!(first.source(ITEM, Wishes::default()).await, Source::Computed);
    let (clock, computed_ms) = (SystemClock, SystemClock.now_ms());
    assert!(first.runtime().cache.close(SOON).await);
    until("it is of some age", || clock.now_ms() > computed_ms + 1).await;
    Step::Disk.fixture(folder).await
}

/// Checks that a strict bulk caller, whose flight was taken over by one to whom the disk would do, gets what was computed.
async fn gets_a_new_computation(
    fixture: &Fixture,
    mut bulk: BoxFuture<'static, Result<Reply, Error>>,
    release: impl FnOnce(),
) {
    let mut waits = fixture.call(&[ITEM], Wishes::default());
    assert!(poll!(waits.as_mut()).is_pending());
    assert!(poll!(bulk.as_mut()).is_pending());
    release();
    assert!(waits.await.unwrap().items.remove(0).is_ok());
    let answer = bulk.await.unwrap().items.remove(0).unwrap();
    assert!([Source::Computed, Source::Coalesced].contains(&answer.source), "{answer:?}");
    fixture.settled().await;
}

#[tokio::test]
async fn who_asks_for_a_new_computation_gets_no_entry_from_disk_with_one_who_goes_before() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = with_item_on_disk(folder.path()).await;
    let held = Step::Queue.hold(&fixture).await;
    let mut bulk = fixture.call(&[ITEM], Wishes { class: Class::Background, ..anew() });
    assert!(poll!(bulk.as_mut()).is_pending());
    until("it waits", || fixture.model.metrics.batch.queue_items.get() == 1).await;
    let release = || {
        fixture.gate.open();
        drop(held);
    };
    gets_a_new_computation(&fixture, bulk, release).await;
}

#[tokio::test]
async fn who_asks_for_a_young_entry_gets_no_old_one_with_one_who_goes_before() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = with_item_on_disk(folder.path()).await;
    let held = fixture.runtime().cache.hold_disk_up();
    let young = CacheControl { max_age: Some(Duration::ZERO), ..CacheControl::default() };
    let wishes = Wishes { class: Class::Background, ..controlled(young) };
    let mut bulk = fixture.call(&[ITEM], wishes);
    assert!(poll!(bulk.as_mut()).is_pending());
    gets_a_new_computation(&fixture, bulk, || drop(held)).await;
}

/// What a caller of the race does.
#[derive(Clone, Copy, Debug)]
struct Racer {
    value: f32,
    is_anew: bool,
    is_bulk: bool,
    on_miss: OnMiss,
    /// How it ends, if it does not wait for its answer, and after how many microseconds.
    end: Option<(End, u64)>,
}

fn racer() -> impl Strategy<Value = Racer> {
    let value = (2_u8..5).prop_map(f32::from);
    let on_miss = prop_oneof![4 => Just(OnMiss::Wait), 1 => Just(OnMiss::ReturnDefault)];
    let end = prop_oneof![Just(End::Gone), Just(End::Deadline), Just(End::Budget)];
    let end = prop::option::weighted(0.4, (end, 0_u64..1_500));
    let (is_anew, is_bulk) = (prop::bool::weighted(0.2), prop::bool::weighted(0.3));
    (value, is_anew, is_bulk, on_miss, end).prop_map(|(value, is_anew, is_bulk, on_miss, end)| {
        Racer { value, is_anew, is_bulk, on_miss, end }
    })
}

impl Racer {
    fn wishes(self) -> Wishes {
        let budget = self.end.filter(|(end, _)| *end == End::Budget);
        Wishes {
            on_miss: Some(self.on_miss),
            wait_budget: budget.map(|(_, micros)| Duration::from_micros(micros)),
            cache: CacheControl { no_cache: self.is_anew, ..CacheControl::default() },
            class: if self.is_bulk { Class::Background } else { Class::Waiting },
        }
    }

    /// Asks, and checks the answer.
    async fn race(self, fixture: &Fixture) {
        let begun_before = fixture.gate.begun();
        let call = fixture.call(&[self.value], self.wishes());
        let reply = match self.end {
            Some((End::Gone | End::Deadline, micros)) => {
                match timeout(Duration::from_micros(micros), call).await {
                    Ok(reply) => reply,
                    Err(_) => return,
                }
            }
            _ => call.await,
        };
        let item = reply.expect("a reply").items.remove(0);
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                // The queue is small.
                assert_eq!(error.kind, ErrorKind::QueueFull);
                return;
            }
        };
        if item.source == Source::Default {
            let may = self.on_miss == OnMiss::ReturnDefault || self.wishes().wait_budget.is_some();
            assert!(may, "nobody asked for the default vector");
            return;
        }
        assert_eq!(item.vector.values().next(), Some(self.value));
        if self.is_anew {
            #[expect(clippy::cast_precision_loss, reason = "tests have few runs")]
            let before = begun_before as f32;
            assert!(run_of(&item) > before, "run {} began before its caller", run_of(&item));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whoever cancels, gives up or asks anew meanwhile: every caller is answered, a key is computed once but for those who
    /// ask for a computation of their own, and nothing is left behind.
    #[test]
    fn a_key_is_computed_once_however_its_callers_come_and_go(
        racers in prop::collection::vec(racer(), 1..80),
    ) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Arc::new(Fixture::new().await);
            let mut calls = JoinSet::new();
            for racer in racers.clone() {
                let fixture = Arc::clone(&fixture);
                calls.spawn(async move { timeout(SOON, racer.race(&fixture)).await });
            }
            while let Some(answered) = calls.join_next().await {
                assert!(answered.expect("it holds").is_ok(), "a caller was not answered");
            }
            fixture.settled().await;
            for value in [2.0, 3.0, 4.0] {
                let of = racers.iter().filter(|racer| racer.value == value);
                let anew = of.filter(|racer| racer.is_anew).count();
                let runs = fixture.gate.runs_of(value) as usize;
                assert!(runs <= 1 + anew, "{runs} computations of {value} for {anew} who ask anew");
            }
        });
    }
}
