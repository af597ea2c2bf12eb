//! What buckets of lengths gain where texts of 8 and of 128 tokens come mixed, beside batches of first come, first served.
//! MiniLM (EMBARK_TEST_MINILM, as tests/run has it), one thread that computes on a core of its own.
//!
//! There is no way to turn buckets off in the product, and none was made for this: the other side is a worker written
//! here, which takes rows as they came, as many as a run may have (maxItems, maxTokens), and gives them to the same
//! engine. Both sides are driven in this process by the same arrivals: 16 texts at a time, as calls bring them, each of
//! either length, at random times, with 70 % of the rate that the first-come side can bear when all that it computes is
//! padded; above that its texts would wait for ever. A text waits from its arrival to its vector.
//!
//! Where texts come one by one at that rate, first come, first served pads little, since little waits: short texts' p50
//! was 0.84 of its.
//!
//! `cargo measure mixed` on 2 cores of a machine that did little else:
//!
//! ```text
//! ratio mixed-useful 1.000 target >= 0.8
//! ratio mixed-short-p50 0.033 target <= 0.3
//! value mixed-long-p50 0.312
//! value mixed-first-come-useful 0.547
//! value mixed-short-p50-ms 42.690
//! value mixed-first-come-short-p50-ms 1252.951
//! ```

#[path = "support/first_come.rs"]
mod first_come;
#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it measures times alone")]
mod measure;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/models.rs"]
#[expect(dead_code, reason = "the vendored model is not needed")]
mod models;
#[path = "support/random.rs"]
mod random;
#[path = "support/report.rs"]
mod report;
#[path = "support/words.rs"]
mod words;

use std::{num::NonZeroUsize, path::Path, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use embark_crds::{
    contract::{Batching, ServingConfig},
    manifest,
    resolve::{Target as Place, resolve},
};
use embark_sidecar::{
    batch::{Batcher, BatcherConfig, Claim, Job, Outcome},
    flight::{Take, Wanted},
    input::{Class, Input, Text},
    metrics::Metrics,
    model::{
        artifact::ArtifactStore,
        engine::{Engine, Row, Threads},
        load::{self, LoadedModel},
    },
};
use first_come::FirstCome;
use measure::{Target, median, pin, ratio};
use parking_lot::Mutex;
use random::Random;
use report::value;
use tokio::{sync::Semaphore, time::Instant};

/// Blocks of each side, and the texts of one.
const BLOCKS: u64 = 5;
const TEXTS: u64 = 96;
/// Texts that come together, as the items of a call.
const CALL: u64 = 16;
/// Tokens of a text.
const SHORT: usize = 8;
const LONG: usize = 128;
/// The share of the rate that first-come batches can bear.
const LOAD: f64 = 0.7;

/// A text that comes.
struct Arrival {
    at: Duration,
    is_short: bool,
    row: Row,
}

/// Seconds that texts waited, short and long ones; and how many have.
struct Waits {
    seconds: Mutex<[Vec<f64>; 2]>,
    ended: Semaphore,
}

/// A text that waits.
struct Waiter {
    waits: Arc<Waits>,
    began: Instant,
    is_short: bool,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.expect("a runtime starts").block_on(measure_all()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn measure_all() -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    // Threads are where this one is when it starts them.
    pin(0);
    let (LoadedModel { preparer, mut engine, .. }, batching) = load(folder.path()).await?;
    let text = |number, tokens| {
        let text = Text::from_utf8(Bytes::from(words::text(number, tokens))).expect("words");
        let row = preparer.prepare("", &Input::Text(text)).expect("a row").rows.remove(0);
        assert_eq!(row.tokens().len(), tokens, "each word is a token");
        row
    };
    let pause = seconds_of_a_long_row(&mut *engine, &text(0, LONG)) / LOAD;
    let metrics = Metrics::default();
    let config =
        BatcherConfig { workers: NonZeroUsize::MIN, batching, longest: preparer.longest() };
    let model = metrics.model("mixed");
    let batcher = Batcher::start(engine.fork(), config, |length| preparer.sample(length), model);
    let batcher = batcher.expect("threads");
    let first_come = FirstCome::start(engine.fork(), batching);
    pin(1);

    let (mut short, mut long) = (Vec::new(), Vec::new());
    for seed in 0..BLOCKS {
        let arrivals = arrivals(seed, pause, text);
        let ours = drive(&arrivals, |row, waiter| submit(&batcher, row, waiter)).await;
        let theirs = drive(&arrivals, |row, waiter| first_come.submit(row, waiter)).await;
        short.push([median(ours[0].clone()), median(theirs[0].clone())]);
        long.push([median(ours[1].clone()), median(theirs[1].clone())]);
    }
    report(&metrics, &first_come, (short, long));
    Ok(())
}

fn report(
    metrics: &Metrics,
    first_come: &FirstCome,
    (short, long): (Vec<[f64; 2]>, Vec<[f64; 2]>),
) {
    let text = metrics.encode();
    let tokens = |kind| metrics::metric(&text, "embark_computed_tokens_total", kind);
    let useful = tokens("useful");
    ratio("mixed-useful", useful / (useful + tokens("padding")), Target::AtLeast(0.8));
    let of = |blocks: &[[f64; 2]], value: fn([f64; 2]) -> f64| {
        median(blocks.iter().map(|block| value(*block)).collect())
    };
    let ours_of_theirs = |[ours, theirs]: [f64; 2]| ours / theirs;
    ratio("mixed-short-p50", of(&short, ours_of_theirs), Target::AtMost(0.3));
    value("mixed-long-p50", of(&long, ours_of_theirs));
    value("mixed-first-come-useful", first_come.useful());
    value("mixed-short-p50-ms", of(&short, |[ours, _]| ours * 1e3));
    value("mixed-first-come-short-p50-ms", of(&short, |[_, theirs]| theirs * 1e3));
}

async fn load(folder: &Path) -> Result<(LoadedModel, Batching), String> {
    let text = models::minilm()?.to_string();
    let manifest = manifest::read(&text).expect("it is a manifest").remove(0);
    let contract = resolve(&manifest.metadata.name, &manifest.spec, Place::Local);
    let serving: ServingConfig = contract.expect("it is good").serving;
    let loaded = load::load(&serving, &ArtifactStore::new(folder), folder, |_| {}).await;
    Ok((loaded.map_err(|error| error.to_string())?, serving.batching))
}

/// A row's share of a run of several, on one thread.
fn seconds_of_a_long_row(engine: &mut dyn Engine, row: &Row) -> f64 {
    let rows = [row; 4];
    let times = (0..5).map(|_| {
        let began = Instant::now();
        engine.run(&rows, Threads::One).expect("it runs");
        began.elapsed().as_secs_f64()
    });
    median(times.collect()) / rows.len() as f64
}

/// Texts that come with this many seconds for each, in the mean; half of them are short.
fn arrivals(seed: u64, pause: f64, text: impl Fn(u64, usize) -> Row) -> Vec<Arrival> {
    let (mut random, mut at) = (Random::new(seed), 0.0);
    let arrival = |number| {
        if number % CALL == 0 {
            at -= (1.0 - random.unit()).ln() * pause * CALL as f64;
        }
        let is_short = random.unit() < 0.5;
        let row = text(seed * TEXTS + number, if is_short { SHORT } else { LONG });
        Arrival { at: Duration::from_secs_f64(at), is_short, row }
    };
    (0..TEXTS).map(arrival).collect()
}

/// The seconds that each text waited, short and long ones.
async fn drive(arrivals: &[Arrival], submit: impl Fn(Row, Waiter)) -> [Vec<f64>; 2] {
    let (waits, began) = (Arc::new(Waits::new()), Instant::now());
    for arrival in arrivals {
        tokio::time::sleep_until(began + arrival.at).await;
        let (waits, is_short) = (Arc::clone(&waits), arrival.is_short);
        submit(arrival.row.clone(), Waiter { waits, began: Instant::now(), is_short });
    }
    let all = u32::try_from(arrivals.len()).expect("a few");
    let _ended = waits.ended.acquire_many(all).await.expect("it is never closed");
    std::mem::take(&mut *waits.seconds.lock())
}

fn submit(batcher: &Batcher, row: Row, waiter: Waiter) {
    let place = batcher.reserve(Class::Waiting, 1).expect("the queue is long enough");
    let submitted = batcher.submit(place, Job { row, claim: Box::new(waiter) });
    assert!(submitted.is_ok(), "the queue is long enough");
}

// === impl Waits ===

impl Waits {
    fn new() -> Self {
        Waits { seconds: Mutex::default(), ended: Semaphore::new(0) }
    }
}

// === impl Waiter ===

impl Waiter {
    fn end(&self) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.waits.seconds.lock()[usize::from(!self.is_short)].push(seconds);
        self.waits.ended.add_permits(1);
    }
}

impl Claim for Waiter {
    fn take(&self, _: Class) -> Take {
        Take::Begin
    }

    fn wanted(&self) -> Wanted {
        Wanted::In(Class::Waiting)
    }

    fn complete(self: Box<Self>, outcome: Outcome) {
        assert!(outcome.result.is_ok(), "it runs");
        self.end();
    }
}
