//! How often a key is computed that many ask for at once. The cache is cold; 64 callers ask for 4 texts a call, drawn by
//! Zipf's law (exponent 1) from 100,000, the next as soon as they are answered. The ratio is that of rows computed to
//! distinct texts asked for, the worst of several servers, with memory alone and with a disk tier. Server and callers
//! share all cores, so that a caller may be held up anywhere.
//!
//! `cargo measure flights` on 2 cores of a machine that did little else:
//!
//! ```text
//! value flights-computed-Memory 24501.000
//! value flights-distinct-Memory 24501.000
//! value flights-computed-MemoryAndDisk 24501.000
//! value flights-distinct-MemoryAndDisk 24501.000
//! ...
//! ratio flights 1.000 target <= 1
//! value flights-failed-calls 0.000
//! ```
//!
//! Before whoever leads looked into memory once more, each server with memory alone computed one row too many: a flight
//! that lands between a caller's look into memory and its joining can be neither found nor joined.

#[path = "support/callers.rs"]
#[expect(dead_code, reason = "it counts, and takes no times")]
mod callers;
#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it counts, and takes no times")]
mod measure;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/models.rs"]
#[expect(dead_code, reason = "the vendored model alone is needed")]
mod models;
#[path = "support/random.rs"]
mod random;
#[path = "support/report.rs"]
mod report;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "what the server costs is not asked")]
mod server;

use std::collections::HashSet;

use callers::Callers;
use embark_sidecar::pb::client::{EmbedRequest, Item, item::Input};
use measure::{Target, ratio};
use random::Random;
use report::value;
use serde_json::json;
use server::Server;

/// Texts that there are.
const KEYS: usize = 100_000;
/// Calls to each server, and texts of a call.
const CALLS: usize = 25_000;
const ITEMS: usize = 4;
/// Servers of each kind.
const SERVERS: u64 = 3;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let (mut worst, mut failed) = (0.0_f64, 0.0);
        for seed in 0..SERVERS {
            for mode in ["Memory", "MemoryAndDisk"] {
                let (ratio, more) = computed_of_distinct(mode, seed).await;
                worst = worst.max(ratio);
                failed += more;
            }
        }
        ratio("flights", worst, Target::AtMost(1.0));
        value("flights-failed-calls", failed);
    });
}

/// Rows computed for each distinct text, and calls that failed.
async fn computed_of_distinct(mode: &str, seed: u64) -> (f64, f64) {
    // None has to leave for another.
    let cache = json!({"mode": mode, "memory": {"sizeLimit": "256Mi"}});
    let server = Server::start(&models::tiny(&cache));
    let callers = Callers::of(&server).await;
    let (calls, distinct) = calls(seed);
    let answers = callers.make(calls).await;
    let computed = server.metric("embark_batch_items_sum");
    value(&format!("flights-computed-{mode}"), computed);
    value(&format!("flights-distinct-{mode}"), distinct as f64);
    (computed / distinct as f64, answers.failed)
}

/// Every call to a server, and how many distinct texts there are in them.
fn calls(seed: u64) -> (Vec<EmbedRequest>, usize) {
    let (mut random, shares) = (Random::new(seed), shares());
    let mut distinct = HashSet::new();
    let mut item = || {
        let drawn = random.unit();
        let key = shares.partition_point(|share| *share < drawn).min(KEYS - 1);
        distinct.insert(key);
        Item { input: Some(Input::Text(format!("the text number {key} of many"))) }
    };
    let mut call =
        || EmbedRequest { items: (0..ITEMS).map(|_| item()).collect(), ..Default::default() };
    let calls = (0..CALLS).map(|_| call()).collect();
    (calls, distinct.len())
}

/// The share of all draws that the first keys have, up to each.
fn shares() -> Vec<f64> {
    let all: f64 = (1..=KEYS).map(|rank| 1.0 / rank as f64).sum();
    let mut sum = 0.0;
    let share = |rank: usize| {
        sum += 1.0 / rank as f64 / all;
        sum
    };
    (1..=KEYS).map(share).collect()
}
