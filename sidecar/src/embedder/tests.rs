//! Callers who leave, whose time is over and whose patience ends, at every step of an item's way; and callers who race.

mod model;
mod races;
mod windows;

use std::{collections::BTreeMap, path::Path, sync::mpsc::Sender, time::Duration};

use bytes::Bytes;
use embark_crds::contract::{
    CacheMode, Contract, Input as ModelInput, Normalization, OnMiss, TensorDtype, TensorInput,
};
use futures_util::{future::BoxFuture, poll};
use parking_lot::{Condvar, Mutex};
use tokio::time::{interval, timeout};

use super::*;
use crate::{
    batch::{Batcher, BatcherConfig, Place},
    cache::{Cache, CacheConfig},
    clock::SystemClock,
    embedding::Embedding,
    flight::Flights,
    input::{CacheControl, Class, Input, Tensor, Wishes},
    metrics::ModelMetrics,
    model::{
        engine::{Engine, Row, RowData, Threads},
        preparer::Preparer,
        test_support,
        tokenizer::Tokenizer,
    },
};

/// Rows that may wait.
const PLACES: u32 = 8;
/// More than enough for anything that is waited for.
const SOON: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(2);
/// The item that the tests are about.
const ITEM: f32 = 7.0;
/// An item that keeps the one worker busy.
const BUSY: f32 = 1.0;
/// The vendored tokenizer's id of the word with which the text begins that models are measured by.
const MEASURED: u32 = 1037;
/// A word whose rows have no vector, and its id.
const BROKEN_WORD: &str = "bad";
const BROKEN: u32 = 2919;

/// Gives an item's value and the number of the run as its vector; waits while the gate is shut for it.
#[derive(Clone)]
struct Obedient(Arc<Gate>);

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// For which items; `None`: for none.
    shut: Option<fn(f32) -> bool>,
    /// Runs that have begun, by the bits of their item's value.
    runs: BTreeMap<u32, u32>,
    begun: u32,
}

impl Gate {
    fn shut(&self) {
        self.shut_for(|_| true);
    }

    fn shut_for(&self, items: fn(f32) -> bool) {
        self.state.lock().shut = Some(items);
    }

    fn open(&self) {
        self.state.lock().shut = None;
        self.changed.notify_all();
    }

    /// Runs that have begun for an item.
    fn runs_of(&self, value: f32) -> u32 {
        self.state.lock().runs.get(&value.to_bits()).copied().unwrap_or_default()
    }

    fn begun(&self) -> u32 {
        self.state.lock().begun
    }

    /// A run begins; gives its number.
    fn enter(&self, value: f32) -> u32 {
        let mut state = self.state.lock();
        *state.runs.entry(value.to_bits()).or_default() += 1;
        state.begun += 1;
        let number = state.begun;
        while state.shut.is_some_and(|shut| shut(value)) {
            self.changed.wait(&mut state);
        }
        number
    }
}

impl Engine for Obedient {
    fn run(&mut self, rows: &[&Row], _: Threads) -> Result<Vec<Result<Embedding, Error>>, Error> {
        let one = |row: &&Row| {
            let (value, tokens) = match &row.data {
                RowData::Tensor(bytes) => {
                    let value = Vector::from_le_bytes(bytes.clone()).values().next();
                    (value.expect("a value"), 0)
                }
                RowData::Tokens(ids) if ids.contains(&BROKEN) => {
                    return Ok(Err(Error::new(ErrorKind::NotFinite, "it has no vector")));
                }
                // Rows of the text that models are measured by, and its first token alone.
                RowData::Tokens(ids) if ids.len() < 3 || ids.contains(&MEASURED) => (0.0, 0),
                RowData::Tokens(ids) => (ITEM, u32::try_from(ids.len()).expect("few")),
                RowData::Index(_) => panic!("it is given texts or tensors"),
            };
            if value == 0.0 {
                // A row that is measured; nothing is to be known.
                return Err(Error::new(ErrorKind::Inference, "not to be measured"));
            }
            #[expect(clippy::cast_precision_loss, reason = "tests have few runs")]
            let vector = Vector::from_values(&[value, self.0.enter(value) as f32]);
            Ok(Ok(Embedding { vector, tokens, truncated: false }))
        };
        rows.iter().map(one).collect()
    }

    fn mixes_lengths(&self) -> bool {
        true
    }

    fn fork(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }
}

/// A model of one number, with everything that it computes with.
struct Fixture {
    embedder: Embedder,
    model: Arc<ServedModel>,
    gate: Arc<Gate>,
}

fn contract(mode: CacheMode) -> Contract {
    let mut contract = test_support::tiny();
    let serving = &mut contract.serving;
    serving.input = ModelInput::Tensor(TensorInput { shape: vec![1], dtype: TensorDtype::Float32 });
    serving.output = test_support::output(2);
    serving.output.normalization = Normalization::None;
    serving.cache.mode = mode;
    serving.cache.memory_bytes = 1 << 20;
    serving.cache.disk_bytes = 64 << 20;
    serving.batching.max_items = 1;
    serving.batching.queue_max_items = PLACES;
    contract
}

impl Fixture {
    /// With a memory tier alone.
    async fn new() -> Self {
        Self::with(contract(CacheMode::Memory), Path::new("unused")).await
    }

    async fn with(contract: Contract, folder: &Path) -> Self {
        Self::with_clock(contract, folder, Arc::new(SystemClock)).await
    }

    async fn with_clock(contract: Contract, folder: &Path, clock: Arc<dyn Clock>) -> Self {
        let model = ServedModel::new(contract, ModelMetrics::detached());
        let serving = &model.contract.serving;
        let config = CacheConfig {
            storage: serving.cache,
            dimensions: serving.output.dimensions.get() as usize,
            folder: folder.to_owned(),
        };
        let (policy, metrics) = (Arc::clone(&model.policy), model.metrics.clone());
        let cache = Cache::open(config, policy, clock.clone(), metrics.cache.clone()).await;
        assert_eq!(cache.has_disk(), serving.cache.mode == CacheMode::MemoryAndDisk);
        let preparer = match &serving.input {
            ModelInput::Tensor(input) => Preparer::of_tensors(input),
            ModelInput::Text(input) => {
                let tokenizer = Tokenizer::load(test_support::TINY_TOKENIZER, input);
                Preparer::Text(Box::new(tokenizer.expect("it is vendored")))
            }
            other => panic!("{other:?}"),
        };
        let gate = Arc::<Gate>::default();
        let (workers, longest) = (NonZeroUsize::MIN, preparer.longest());
        let config = BatcherConfig { workers, batching: serving.batching, longest };
        let engine = Box::new(Obedient(Arc::clone(&gate)));
        let batcher = Batcher::start(engine, config, |length| preparer.sample(length), metrics);
        let (batcher, flights) = (batcher.expect("a thread"), Arc::<Flights>::default());
        model.start(Runtime { fetcher: None, preparer, batcher, cache, flights });
        let embedder = Embedder::new(NonZeroUsize::MIN, clock).expect("a thread");
        Fixture { embedder, model: Arc::new(model), gate }
    }

    fn runtime(&self) -> &Runtime {
        self.model.runtime().expect("it was started")
    }

    /// A call, begun once it is polled.
    fn call(&self, values: &[f32], wishes: Wishes) -> BoxFuture<'static, Result<Reply, Error>> {
        let (embedder, model) = (self.embedder.clone(), Arc::clone(&self.model));
        let items = values.iter().map(|value| Ok(input(*value))).collect();
        let request = Request { items, wishes, ..Request::default() };
        Box::pin(async move { embedder.embed(&model, request).await })
    }

    /// Where an item's vector came from, asked for by itself.
    async fn source(&self, value: f32, wishes: Wishes) -> Source {
        self.call(&[value], wishes).await.expect("a reply").items.remove(0).expect("it").source
    }

    /// Every place in the queue, if all are free.
    fn all_places(&self) -> Option<Vec<Place>> {
        let batcher = &self.runtime().batcher;
        (0..PLACES).map(|_| batcher.reserve(Class::Waiting, 1).ok()).collect()
    }

    /// Waits until nothing is under way, and checks that nothing is left of what was.
    async fn settled(&self) {
        until("no flight is left", || self.runtime().flights.is_empty()).await;
        until("every place is given back", || self.all_places().is_some()).await;
        let metrics = &self.model.metrics;
        let measures =
            || metrics.batch.queue_items.get() == 0 && metrics.batch.queue_cost.get() == 0;
        until("the queue measures nothing", measures).await;
    }

    /// Keeps the thread that prepares busy until what it gives is dropped.
    fn keep_preparation_busy(&self) -> Sender<()> {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let admission = self.embedder.pool.admit(Class::Waiting).expect("there is room");
        admission.hand_over(move || {
            let _ = held.recv();
        });
        release
    }
}

fn input(value: f32) -> Input {
    Input::Tensor(Tensor::from_le_bytes(Bytes::copy_from_slice(&value.to_le_bytes())))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut ticks = interval(TICK);
    let waited = timeout(SOON, async {
        while !holds() {
            ticks.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "it never came to be that {what}");
}

/// Where an item is when its caller ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Disk,
    Preparation,
    Queue,
    Run,
}

/// How a caller ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has gone.
    Gone,
    /// Its time is over; the transport drops the call.
    Deadline,
    /// It takes the default vector.
    Budget,
}

/// What holds an item up at a step; dropping it lets go, once the gate is open.
#[expect(dead_code, reason = "it is held, not read")]
enum Held {
    Disk(Vec<Sender<()>>),
    Preparation(Sender<()>),
    Queue(BoxFuture<'static, Result<Reply, Error>>),
    Run,
}

impl Step {
    const ALL: [Step; 4] = [Step::Disk, Step::Preparation, Step::Queue, Step::Run];

    async fn fixture(self, folder: &Path) -> Fixture {
        let mode = if self == Step::Disk { CacheMode::MemoryAndDisk } else { CacheMode::Memory };
        Fixture::with(contract(mode), folder).await
    }

    /// Has whatever comes to this step stay there.
    async fn hold(self, fixture: &Fixture) -> Held {
        match self {
            Step::Disk => Held::Disk(fixture.runtime().cache.hold_disk_up()),
            Step::Preparation => Held::Preparation(fixture.keep_preparation_busy()),
            Step::Queue => {
                fixture.gate.shut();
                let mut busy = fixture.call(&[BUSY], Wishes::default());
                assert!(poll!(busy.as_mut()).is_pending());
                until("the worker is busy", || fixture.gate.runs_of(BUSY) == 1).await;
                Held::Queue(busy)
            }
            Step::Run => {
                fixture.gate.shut();
                Held::Run
            }
        }
    }

    /// Waits until the item is there.
    async fn reached(self, fixture: &Fixture) {
        match self {
            // Its task has its turn; the disk answers nobody.
            Step::Disk => tokio::task::yield_now().await,
            Step::Preparation => {}
            Step::Queue => {
                until("it waits", || fixture.model.metrics.batch.queue_items.get() == 1).await;
            }
            Step::Run => until("it is run", || fixture.gate.runs_of(ITEM) == 1).await,
        }
        assert_eq!(fixture.gate.runs_of(ITEM), u32::from(self == Step::Run));
    }
}

impl End {
    const ALL: [End; 3] = [End::Gone, End::Deadline, End::Budget];

    fn wishes(self) -> Wishes {
        let wait_budget = (self == End::Budget).then_some(TICK);
        Wishes { wait_budget, on_miss: Some(OnMiss::Wait), ..Wishes::default() }
    }

    /// Ends a caller who waits for one item.
    async fn end(self, caller: BoxFuture<'static, Result<Reply, Error>>) {
        match self {
            End::Gone => drop(caller),
            End::Deadline => assert!(timeout(TICK, caller).await.is_err()),
            End::Budget => {
                let reply = timeout(SOON, caller).await.expect("its budget ends").expect("a reply");
                let answer = reply.items[0].as_ref().expect("the default vector");
                assert_eq!(answer.source, Source::Default);
            }
        }
    }

    /// Whether the computation is still wanted after it.
    fn leaves_a_fill(self) -> bool {
        self == End::Budget
    }
}

/// Ends a caller while its item is at a step, without company.
async fn ends_alone(step: Step, end: End) {
    let folder = tempfile::tempdir().unwrap();
    let fixture = step.fixture(folder.path()).await;
    let held = step.hold(&fixture).await;
    let mut caller = fixture.call(&[ITEM], end.wishes());
    assert!(poll!(caller.as_mut()).is_pending());
    step.reached(&fixture).await;
    assert_eq!(fixture.runtime().flights.len(), 1 + usize::from(step == Step::Queue));
    end.end(caller).await;
    fixture.gate.open();
    drop(held);
    fixture.settled().await;
    // What was begun is brought to its end, and so is what somebody wants later.
    let goes_on = step == Step::Run || end.leaves_a_fill();
    assert_eq!(fixture.gate.runs_of(ITEM), u32::from(goes_on));
    let source = fixture.source(ITEM, Wishes::default()).await;
    assert_eq!(source, if goes_on { Source::HitMemory } else { Source::Computed });
    // Whoever kept the worker busy has left by now too, while it was run.
    assert_eq!(fixture.model.metrics.batch.cancelled.get(), u64::from(!goes_on));
    fixture.settled().await;
}

/// Ends a caller while its item is at a step and others follow, one of them with a budget that has ended.
async fn ends_in_company(step: Step, end: End) {
    let folder = tempfile::tempdir().unwrap();
    let fixture = step.fixture(folder.path()).await;
    let held = step.hold(&fixture).await;
    let mut caller = fixture.call(&[ITEM], end.wishes());
    assert!(poll!(caller.as_mut()).is_pending());
    let mut others = [End::Gone, End::Budget, End::Deadline, End::Gone]
        .map(|other| (other, fixture.call(&[ITEM], other.wishes())));
    for (_, other) in &mut others {
        assert!(poll!(other.as_mut()).is_pending());
    }
    step.reached(&fixture).await;
    // Nobody leads but the first.
    assert_eq!(fixture.runtime().flights.len(), 1 + usize::from(step == Step::Queue));
    end.end(caller).await;
    let [(_, stays), leaving @ ..] = others;
    for (other, leaves) in leaving {
        other.end(leaves).await;
    }
    fixture.gate.open();
    drop(held);
    let reply = timeout(SOON, stays).await.expect("it is answered").expect("a reply");
    let answer = reply.items[0].as_ref().expect("a vector");
    assert_eq!(answer.source, Source::Coalesced);
    assert_eq!(answer.vector.values().next(), Some(ITEM));
    fixture.settled().await;
    assert_eq!((fixture.gate.runs_of(ITEM), fixture.model.metrics.batch.cancelled.get()), (1, 0));
    assert_eq!(fixture.source(ITEM, Wishes::default()).await, Source::HitMemory);
}

#[tokio::test]
async fn a_caller_who_ends_alone_leaves_nothing_but_what_was_begun_or_is_wanted_later() {
    for step in Step::ALL {
        for end in End::ALL {
            eprintln!("{end:?} at {step:?}");
            ends_alone(step, end).await;
        }
    }
}

#[tokio::test]
async fn a_caller_who_ends_takes_nothing_from_those_who_follow() {
    for step in Step::ALL {
        for end in End::ALL {
            eprintln!("{end:?} at {step:?}");
            ends_in_company(step, end).await;
        }
    }
}

#[tokio::test]
async fn a_caller_who_leaves_while_the_disk_is_asked_before_an_answer_begins_nothing() {
    for on_miss in [OnMiss::ReturnDefault, OnMiss::Fail] {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Step::Disk.fixture(folder.path()).await;
        let wishes = Wishes { on_miss: Some(on_miss), ..Wishes::default() };
        let held = fixture.runtime().cache.hold_disk_up();
        let mut caller = fixture.call(&[ITEM], wishes);
        assert!(poll!(caller.as_mut()).is_pending());
        drop(caller);
        drop(held);
        fixture.settled().await;
        assert_eq!((fixture.gate.begun(), fixture.model.metrics.batch.cancelled.get()), (0, 0));
        // The disk is asked as before.
        let answer = fixture.call(&[ITEM], wishes).await.unwrap().items.remove(0);
        match on_miss {
            OnMiss::Fail => assert_eq!(answer.unwrap_err().kind, ErrorKind::Miss),
            _ => assert_eq!(answer.unwrap().source, Source::Default),
        }
        fixture.settled().await;
        assert_eq!(fixture.gate.begun(), u32::from(on_miss == OnMiss::ReturnDefault));
    }
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_no_default_vector_back_and_the_item_is_computed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Step::Disk.fixture(folder.path()).await;
    let held = fixture.runtime().cache.hold_disk_up();
    let wishes = Wishes { on_miss: Some(OnMiss::ReturnDefault), ..Wishes::default() };
    assert_eq!(fixture.source(ITEM, wishes).await, Source::Default);
    fixture.settled().await;
    assert_eq!(fixture.source(ITEM, wishes).await, Source::HitMemory);
    drop(held);
}

#[tokio::test]
async fn a_budget_that_ends_gives_what_has_landed_and_the_default_for_the_rest() {
    let fixture = Fixture::new().await;
    fixture.gate.shut_for(|value| value == 9.0);
    let mut caller = fixture.call(&[ITEM, 9.0, 10.0], End::Budget.wishes());
    assert!(poll!(caller.as_mut()).is_pending());
    until("one is computed and the next is run", || fixture.gate.runs_of(9.0) == 1).await;
    let reply = timeout(SOON, caller).await.expect("its budget ends").expect("a reply");
    let sources: Vec<Source> = reply.items.into_iter().map(|item| item.unwrap().source).collect();
    assert_eq!(sources, [Source::Computed, Source::Default, Source::Default]);
    fixture.gate.open();
    fixture.settled().await;
    for value in [9.0, 10.0] {
        assert_eq!(fixture.source(value, Wishes::default()).await, Source::HitMemory);
    }
}

#[tokio::test]
async fn a_caller_who_finds_no_place_waits_for_none_and_takes_the_default_if_it_may() {
    let fixture = Fixture::new().await;
    let places = fixture.all_places().unwrap();
    let refused = fixture.call(&[ITEM], Wishes::default()).await.unwrap().items.remove(0);
    assert_eq!(refused.unwrap_err().kind, ErrorKind::QueueFull);
    assert_eq!(fixture.source(ITEM, End::Budget.wishes()).await, Source::Default);
    let default = Wishes { on_miss: Some(OnMiss::ReturnDefault), ..Wishes::default() };
    assert_eq!(fixture.source(ITEM, default).await, Source::Default);
    drop(places);
    fixture.settled().await;
    assert_eq!((fixture.gate.begun(), fixture.model.metrics.batch.dropped_fills.get()), (0, 1));
    assert_eq!(fixture.source(ITEM, Wishes::default()).await, Source::Computed);
}

#[tokio::test]
async fn a_queue_full_of_what_nobody_wants_makes_room() {
    let fixture = Fixture::new().await;
    let held = Step::Queue.hold(&fixture).await;
    let mut left: Vec<_> = (0..PLACES)
        .map(|n| {
            fixture.call(&[100.0 + f32::from(u8::try_from(n).expect("few"))], Wishes::default())
        })
        .collect();
    for caller in &mut left {
        assert!(poll!(caller.as_mut()).is_pending());
    }
    until("they wait", || fixture.model.metrics.batch.queue_items.get() == i64::from(PLACES)).await;
    drop(left);
    let next = fixture.call(&[ITEM], Wishes::default());
    // On a thread of its own, which may hang.
    let asked = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(next)
    });
    until("it waits alone", || fixture.model.metrics.batch.queue_items.get() == 1).await;
    fixture.gate.open();
    drop(held);
    until("it is answered", || asked.is_finished()).await;
    let answer = asked.join().expect("it does not panic").expect("a reply").items.remove(0);
    assert_eq!(answer.expect("a vector").source, Source::Computed);
    fixture.settled().await;
    assert_eq!(fixture.model.metrics.batch.cancelled.get(), u64::from(PLACES));
}
