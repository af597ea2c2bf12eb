//! What hits take while three times as many misses come as can be computed, beside the same server with nothing else to do.
//! MiniLM (EMBARK_TEST_MINILM, as tests/run has it) on one core, which computes, answers and refuses; callers have the
//! other. Misses come at random times, a text of 16 tokens each, whether or not earlier ones are answered, and hits
//! likewise beside them; blocks with and without misses take turns, and what waits is computed between them.
//!
//! `cargo measure brownout` on 2 cores, while compilers ran beside it, which is what the unloaded p99 of 4 ms is of:
//!
//! ```text
//! ratio brownout-p50 0.949 target <= 2
//! ratio brownout-p99-added-ms 1.736 target <= 5
//! ratio brownout-refused-hits 0.000 target <= 0
//! value brownout-hits 9585.000
//! value brownout-unloaded-p50-us 442.794
//! value brownout-p50-us 422.134
//! value brownout-unloaded-p99-ms 4.153
//! value brownout-p99-ms 5.889
//! value brownout-capacity-per-second 106.219
//! value brownout-misses-sent 7815.000
//! value brownout-misses-shed 6321.000
//! ```
//!
//! Another run, with still more beside it, added 25.5 ms to a p99 of 6.2 ms: to be measured again where nothing else runs.

#[path = "support/callers.rs"]
#[expect(dead_code, reason = "times of hits are taken elsewhere")]
mod callers;
#[path = "support/measure.rs"]
#[expect(dead_code, reason = "every target here is an upper one")]
mod measure;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/models.rs"]
#[expect(dead_code, reason = "the vendored model computes too fast")]
mod models;
#[path = "support/open.rs"]
mod open;
#[path = "support/random.rs"]
mod random;
#[path = "support/report.rs"]
mod report;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "it is started once, and killed")]
mod server;
#[path = "support/words.rs"]
mod words;

use std::{process::ExitCode, time::Duration};

use callers::Callers;
use embark_sidecar::pb::client::{EmbedRequest, Item, item::Input};
use measure::{Target, median, pin, ratio};
use open::{Load, quantile};
use report::value;
use serde_json::{Value, json};
use server::Server;
use tokio::time::{Instant, interval};

/// Blocks of each kind, and how long one takes.
const BLOCKS: usize = 6;
const BLOCK: Duration = Duration::from_secs(4);
/// Hits a second.
const HITS: f64 = 400.0;
/// Texts that are cached.
const CACHED: u64 = 256;
/// Misses beside what can be computed.
const OVERLOAD: f64 = 3.0;
/// Texts that tell what can be computed.
const PROBES: u64 = 384;
/// Tokens of a text.
const TOKENS: usize = 16;
/// What a miss and a hit may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What hits took, in seconds.
#[derive(Default)]
struct Hits {
    p50s: Vec<f64>,
    all: Vec<f64>,
    refused: f64,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let manifest = match models::minilm() {
        Ok(manifest) => manifest,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(measure_all(manifest));
    ExitCode::SUCCESS
}

async fn measure_all(mut manifest: Value) {
    manifest["spec"]["cache"] = json!({"mode": "Memory"});
    // The server is where this thread is when it starts it.
    pin(0);
    let server = Server::start(&manifest);
    pin(1);
    let capacity = capacity(&server).await;
    let misses = Load::of(&server, capacity * OVERLOAD, PATIENCE).await;
    let hits = Load::of(&server, HITS, PATIENCE).await;
    let (mut alone, mut loaded) = (Hits::default(), Hits::default());
    let (mut number, mut shed, mut sent) = (PROBES + CACHED, 0.0, 0.0);
    for block in 0..BLOCKS {
        let hit = |at| text(at % CACHED);
        let seed = 2 * block as u64;
        alone.take(hits.send((seed, BLOCK), hit).await);
        let first = number;
        let miss = |at| text(first + at);
        let (own, others) =
            tokio::join!(hits.send((seed, BLOCK), hit), misses.send((seed + 1, BLOCK), miss));
        loaded.take(own);
        number += others.sent;
        sent += others.sent as f64;
        shed += others.failed;
        idle(&server).await;
    }
    report(&mut alone, &mut loaded);
    value("brownout-capacity-per-second", capacity);
    value("brownout-misses-sent", sent);
    value("brownout-misses-shed", shed);
}

fn report(alone: &mut Hits, loaded: &mut Hits) {
    let ratios = loaded.p50s.iter().zip(&alone.p50s).map(|(loaded, alone)| loaded / alone);
    ratio("brownout-p50", median(ratios.collect()), Target::AtMost(2.0));
    let [loaded_p99, alone_p99] = [&mut loaded.all, &mut alone.all].map(|all| quantile(all, 0.99));
    ratio("brownout-p99-added-ms", (loaded_p99 - alone_p99) * 1e3, Target::AtMost(5.0));
    ratio("brownout-refused-hits", loaded.refused + alone.refused, Target::AtMost(0.0));
    value("brownout-hits", loaded.all.len() as f64);
    value("brownout-unloaded-p50-us", median(alone.p50s.clone()) * 1e6);
    value("brownout-p50-us", median(loaded.p50s.clone()) * 1e6);
    value("brownout-unloaded-p99-ms", alone_p99 * 1e3);
    value("brownout-p99-ms", loaded_p99 * 1e3);
}

/// Texts a second that can be computed, with as many callers as fill every run. Caches some of them.
async fn capacity(server: &Server) -> f64 {
    let callers = Callers::of(server).await;
    let cached = callers.make((0..CACHED).map(text).collect()).await;
    assert!(cached.failed < 1.0, "they are computed in time");
    let probes = callers.make((CACHED..CACHED + PROBES).map(text).collect()).await;
    PROBES as f64 / probes.seconds
}

/// Waits until nothing waits to be computed.
async fn idle(server: &Server) {
    let (mut ticks, began) = (interval(Duration::from_millis(100)), Instant::now());
    while server.metric("embark_flights") > 0.5 {
        assert!(began.elapsed() < Duration::from_secs(60), "what waits is computed");
        ticks.tick().await;
    }
}

fn text(number: u64) -> EmbedRequest {
    let input = Input::Text(words::text(number, TOKENS));
    EmbedRequest { items: vec![Item { input: Some(input) }], ..Default::default() }
}

// === impl Hits ===

impl Hits {
    fn take(&mut self, answers: open::Answers) {
        self.refused += answers.failed;
        self.p50s.push(median(answers.seconds.clone()));
        self.all.extend(answers.seconds);
    }
}
