//! What merging many callers' rows into few runs saves, beside one row a run (`spec.batching.maxItems: 1`). The cache is
//! off and no two inputs are equal. 64 callers with a connection each make the same number of calls on both sides, the
//! next as soon as they are answered. The servers have one core, and the callers the other.
//!
//! `merge-dense` is a dense tower of 13 numbers, `merge-text` is MiniLM at 16 tokens (EMBARK_TEST_MINILM, as tests/run has
//! it). `cpu` is the time of the threads that prepare and compute; `process-cpu`, beside it, that of the whole server.
//! `-- dense` or `-- text` measures one of them. `merge-text` lets a run take 250 ms: where a text takes 8 ms, as on this
//! machine, the default of 50 ms holds no more than 6, of which 4 are within 5 % of the best rate, so a fourth of the runs.
//!
//! `cargo measure merge` on 2 cores of a machine that did little else:
//!
//! ```text
//! ratio merge-dense-runs 0.058 target <= 0.2
//! ratio merge-dense-cpu 0.452 target <= 0.5
//! ratio merge-dense-timeouts-percent 0.000 target <= 0.01
//! ratio merge-dense-p50-added-ms -2.944 target <= 5
//! value merge-dense-process-cpu 0.603
//! value merge-dense-seconds 0.620
//! value merge-dense-merged-p50-ms 4.182
//! value merge-dense-alone-p50-ms 7.254
//! ratio merge-text-runs 0.059 target <= 0.2
//! ratio merge-text-cpu 0.562 target <= 0.85
//! ratio merge-text-timeouts-percent 0.000 target <= 0.01
//! ratio merge-text-p50-added-ms -432.135 target <= 5
//! value merge-text-process-cpu 0.552
//! value merge-text-seconds 0.556
//! value merge-text-merged-p50-ms 469.588
//! value merge-text-alone-p50-ms 909.182
//! ```

#[path = "support/callers.rs"]
mod callers;
#[path = "support/measure.rs"]
#[expect(dead_code, reason = "every target here is an upper one")]
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
#[path = "support/server.rs"]
#[expect(dead_code, reason = "it is started once, and killed")]
mod server;
#[path = "support/threads.rs"]
mod threads;
#[path = "support/tower.rs"]
mod tower;
#[path = "support/words.rs"]
mod words;

use std::process::ExitCode;

use callers::Callers;
use embark_sidecar::pb::client::{EmbedRequest, Item, Tensor, item::Input};
use measure::{BLOCKS, Target, cpu, median, pin, ratio};
use random::Random;
use report::value;
use serde_json::{Value, json};
use server::Server;

/// Calls of a block.
const DENSE_CALLS: u64 = 6000;
const TEXT_CALLS: u64 = 256;
/// Tokens of a text.
const TOKENS: usize = 16;
/// So that what merging gains decides how many texts share a run, and not how long it takes.
const LONGEST_RUN: &str = "250ms";

/// A comparison.
struct Comparison {
    name: &'static str,
    manifest: Value,
    calls: u64,
    call: fn(u64) -> EmbedRequest,
    most_cpu: f64,
}

/// A server, and who calls it.
struct Side {
    server: Server,
    callers: Callers,
}

/// What a block took.
struct Block {
    runs: f64,
    cpu: f64,
    process_cpu: f64,
    seconds: f64,
    p50: f64,
    failed: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let named: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let is_asked = |name: &str| named.is_empty() || named.iter().any(|named| *named == name);
    let folder = tempfile::tempdir().expect("a folder");
    if is_asked("dense") {
        run(&Comparison {
            name: "merge-dense",
            manifest: tower::manifest(folder.path(), &tower::DENSE),
            calls: DENSE_CALLS,
            call: features,
            most_cpu: 0.5,
        });
    }
    if is_asked("text") {
        let mut manifest = match models::minilm() {
            Ok(manifest) => manifest,
            Err(sentence) => {
                eprintln!("{sentence}");
                return ExitCode::FAILURE;
            }
        };
        manifest["spec"]["batching"] = json!({"maxDuration": LONGEST_RUN});
        let (calls, call) = (TEXT_CALLS, text as fn(u64) -> EmbedRequest);
        run(&Comparison { name: "merge-text", manifest, calls, call, most_cpu: 0.85 });
    }
    ExitCode::SUCCESS
}

fn run(comparison: &Comparison) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(compare(comparison));
}

async fn compare(comparison: &Comparison) {
    let mut alone = comparison.manifest.clone();
    alone["spec"]["batching"]["maxItems"] = json!(1);
    let merged = Side::start(&comparison.manifest).await;
    let alone = Side::start(&alone).await;
    let mut numbers = 0;
    let mut next = || {
        let calls = (numbers..numbers + comparison.calls).map(comparison.call).collect();
        numbers += comparison.calls;
        calls
    };
    let mut blocks = Vec::new();
    for _ in 0..BLOCKS {
        blocks.push((merged.block(next()).await, alone.block(next()).await));
    }
    report(comparison, &blocks);
}

fn report(comparison: &Comparison, blocks: &[(Block, Block)]) {
    let name = |what: &str| format!("{}-{what}", comparison.name);
    let of = |value: fn(&Block, &Block) -> f64| {
        median(blocks.iter().map(|(merged, alone)| value(merged, alone)).collect())
    };
    let most = Target::AtMost;
    ratio(&name("runs"), of(|merged, alone| merged.runs / alone.runs), most(0.2));
    ratio(&name("cpu"), of(|merged, alone| merged.cpu / alone.cpu), most(comparison.most_cpu));
    let calls = comparison.calls as f64 * blocks.len() as f64;
    let failed: f64 = blocks.iter().map(|(merged, _)| merged.failed).sum();
    ratio(&name("timeouts-percent"), failed / calls * 100.0, most(0.01));
    ratio(&name("p50-added-ms"), of(|merged, alone| (merged.p50 - alone.p50) * 1e3), most(5.0));
    value(&name("process-cpu"), of(|merged, alone| merged.process_cpu / alone.process_cpu));
    value(&name("seconds"), of(|merged, alone| merged.seconds / alone.seconds));
    value(&name("merged-p50-ms"), of(|merged, _| merged.p50 * 1e3));
    value(&name("alone-p50-ms"), of(|_, alone| alone.p50 * 1e3));
}

/// A row of numbers, another for each number.
fn features(number: u64) -> EmbedRequest {
    let mut random = Random::new(number);
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    let float_values = (0..tower::FEATURES).map(|_| random.unit() as f32).collect();
    of(Input::Tensor(Tensor { float_values, ..Default::default() }))
}

fn text(number: u64) -> EmbedRequest {
    of(Input::Text(words::text(number, TOKENS)))
}

fn of(input: Input) -> EmbedRequest {
    EmbedRequest { items: vec![Item { input: Some(input) }], ..Default::default() }
}

// === impl Side ===

impl Side {
    async fn start(manifest: &Value) -> Self {
        // The server is where this thread is when it starts it.
        pin(0);
        let server = Server::start(manifest);
        pin(1);
        let callers = Callers::of(&server).await;
        Side { server, callers }
    }

    async fn block(&self, calls: Vec<EmbedRequest>) -> Block {
        let (before, answers, after) =
            (self.counts(), self.callers.make(calls).await, self.counts());
        let [runs, cpu, process_cpu] = [0, 1, 2].map(|at| after[at] - before[at]);
        let (seconds, p50, failed) = (answers.seconds, answers.p50, answers.failed);
        Block { runs, cpu, process_cpu, seconds, p50, failed }
    }

    /// Runs, seconds of the threads that prepare and compute, seconds of the process.
    fn counts(&self) -> [f64; 3] {
        let id = self.server.id();
        let runs = self.server.metric("embark_batch_items_count");
        [runs, threads::cpu(id, &["prepare-", "compute-"]), cpu(id).as_secs_f64()]
    }
}
