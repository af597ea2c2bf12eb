//! What becomes of hits, memory and the start as entries become many. Three servers have 10,000, 100,000 and 1,000,000
//! vectors of 128 values in memory, all of them on one core and asked in turns, one item a call and any entry as often as
//! any other; the caller has the other core. A fourth has at least 1,000,000 on disk, ends in order, and starts again.
//!
//! `cargo measure scale` on 2 cores of a machine that did little else, the start on one that was busy:
//!
//! ```text
//! value scale-disk-failed-calls 656.000
//! value scale-disk-entries 1020989.000
//! ratio scale-start-seconds 1.109 target <= 2
//! value scale-start-found-percent 74.074
//! value scale-start-empty-seconds 0.200
//! value scale-hit-1e4-us 94.644
//! value scale-memory-1e4-mb 69.534
//! value scale-entry-1e4-bytes 1236.173
//! ratio scale-hit-1e5 1.016 target <= 1.1
//! value scale-hit-1e5-us 94.012
//! value scale-memory-1e5-mb 132.297
//! value scale-entry-1e5-bytes 750.264
//! ratio scale-hit-1e6 0.999 target <= 1.1
//! value scale-hit-1e6-us 93.904
//! value scale-memory-1e6-mb 747.459
//! value scale-entry-1e6-bytes 690.299
//! ```
//!
//! What is not found after the start is what was never written: the disk tier drops writes that come faster than it takes
//! them, and calls fail that wait for longer than 2 s.

#[path = "support/callers.rs"]
#[expect(dead_code, reason = "it takes no times")]
mod callers;
#[path = "support/measure.rs"]
#[expect(dead_code, reason = "every target here is an upper one")]
mod measure;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/models.rs"]
#[expect(dead_code, reason = "the vendored model alone is needed")]
mod models;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "it needs numbers alone")]
mod random;
#[path = "support/report.rs"]
mod report;
#[path = "support/resident.rs"]
#[expect(dead_code, reason = "neither peaks nor kinds are asked")]
mod resident;
#[path = "support/server.rs"]
mod server;

use std::{fs, time::Duration};

use callers::Callers;
use embark_sidecar::pb::client::{
    EmbedRequest, Item, Source, embedding_service_client::EmbeddingServiceClient, item::Input,
};
use measure::{BLOCKS, Target, median, pin, ratio};
use random::Random;
use report::value;
use resident::resident;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use serde_json::{Value, json};
use server::Server;
use tokio::time::{Instant, interval};
use tonic::transport::Channel;

/// Entries of each server, by the names of results.
const SIZES: [(&str, u64); 3] = [("1e4", 10_000), ("1e5", 100_000), ("1e6", 1_000_000)];
/// Calls of a block.
const CALLS: usize = 1500;
/// Items of a call that fills, and of those calls that are made at a time.
const ITEMS: usize = 32;
const CHUNK: usize = 32_000;
/// Far more than writing takes what waits to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// A server whose entries are in memory.
struct Full {
    server: Server,
    entries: u64,
    client: EmbeddingServiceClient<Channel>,
    empty: f64,
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        // Before this thread, and what it starts, is kept on one core.
        start().await;
        hits().await;
    });
}

async fn hits() {
    let mut servers = Vec::new();
    for (_, entries) in SIZES {
        servers.push(Full::of(entries).await);
    }
    for full in &servers {
        keep_on(full.server.id(), 0);
    }
    pin(1);
    let (mut random, mut p50s) = (Random::new(1), SIZES.map(|_| Vec::new()));
    for _ in 0..BLOCKS {
        for (full, p50s) in servers.iter_mut().zip(&mut p50s) {
            p50s.push(full.p50(&mut random).await);
        }
    }
    for (index, (name, entries)) in SIZES.into_iter().enumerate() {
        let ratios = p50s[index].iter().zip(&p50s[0]).map(|(many, few)| many / few);
        if index > 0 {
            ratio(&format!("scale-hit-{name}"), median(ratios.collect()), Target::AtMost(1.1));
        }
        value(&format!("scale-hit-{name}-us"), median(p50s[index].clone()) * 1e6);
        let (full, now) = (&servers[index], resident(servers[index].server.id()));
        value(&format!("scale-memory-{name}-mb"), now / 1e6);
        value(&format!("scale-entry-{name}-bytes"), (now - full.empty) / entries as f64);
    }
}

async fn start() {
    let cache = json!({"mode": "MemoryAndDisk", "memory": {"sizeLimit": "16Mi"}, "disk": {"sizeLimit": "8Gi"}});
    let manifest = models::tiny(&cache);
    let server = Server::start(&manifest);
    let (callers, mut asked, mut failed) = (Callers::of(&server).await, 0, 0.0);
    while server.metric("embark_cache_writes_total") < 1e6 {
        // What is refused meanwhile is not there later, and that is all.
        failed += fill(&callers, asked..asked + CHUNK as u64).await;
        asked += CHUNK as u64;
        written(&server).await;
    }
    value("scale-disk-failed-calls", failed);
    value("scale-disk-entries", server.metric("embark_cache_writes_total"));
    drop(callers);
    let folder = server.end();
    let began = Instant::now();
    let server = Server::start_in(folder, &manifest);
    ratio("scale-start-seconds", began.elapsed().as_secs_f64(), Target::AtMost(2.0));
    let mut client = EmbeddingServiceClient::new(server.channel().await);
    let mut found = 0_u32;
    for number in (0..asked).step_by(10_007) {
        let reply = client.embed(call(number..number + 1)).await.expect("it is answered");
        found += u32::from(reply.into_inner().results[0].source() == Source::HitDisk);
    }
    value("scale-start-found-percent", f64::from(found) / (asked as f64 / 10_007.0).ceil() * 100.0);
    drop(server);
    let began = Instant::now();
    let _server = Server::start(&manifest);
    value("scale-start-empty-seconds", began.elapsed().as_secs_f64());
}

/// Has texts computed, and gives how many calls failed.
async fn fill(callers: &Callers, numbers: std::ops::Range<u64>) -> f64 {
    let from = numbers.step_by(ITEMS);
    let calls =
        from.map(|first| EmbedRequest { omit_vectors: true, ..call(first..first + ITEMS as u64) });
    callers.make(calls.collect()).await.failed
}

/// Waits until what was computed is on disk, or was dropped.
async fn written(server: &Server) {
    let (mut ticks, began) = (interval(Duration::from_millis(20)), Instant::now());
    let ended = || {
        let written = server.metric("embark_cache_writes_total");
        written + server.metric("embark_cache_dropped_writes_total")
    };
    while ended() < server.metric("embark_batch_items_sum") {
        assert!(began.elapsed() < WRITTEN_WITHIN, "what waits is written");
        ticks.tick().await;
    }
}

fn call(numbers: std::ops::Range<u64>) -> EmbedRequest {
    let text = |number| Item { input: Some(Input::Text(format!("a text of many, {number}"))) };
    EmbedRequest { items: numbers.map(text).collect(), ..Default::default() }
}

/// Keeps every thread of a process on one core.
fn keep_on(process: u32, core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    for task in fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten() {
        let id = task.file_name().to_string_lossy().parse().expect("a number");
        // One that has ended is nowhere.
        let _ = sched_setaffinity(Pid::from_raw(id), &cores);
    }
}

// === impl Full ===

impl Full {
    async fn of(entries: u64) -> Self {
        let cache: Value = json!({"mode": "Memory", "memory": {"sizeLimit": "4Gi"}});
        let server = Server::start(&models::tiny(&cache));
        let callers = Callers::of(&server).await;
        let empty = resident(server.id());
        for first in (0..entries).step_by(CHUNK) {
            let failed = fill(&callers, first..(first + CHUNK as u64).min(entries)).await;
            assert!(failed < 1.0, "{failed} calls failed");
        }
        let kept = server.metric("embark_cache_entries");
        assert!(kept >= entries as f64, "{kept} of {entries} are there");
        let client = EmbeddingServiceClient::new(server.channel().await);
        Full { server, entries, client, empty }
    }

    /// The median of a block's seconds.
    async fn p50(&mut self, random: &mut Random) -> f64 {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let number = random.number() % self.entries;
            let request = call(number..number + 1);
            let began = Instant::now();
            let reply = self.client.embed(request).await.expect("it is answered");
            times.push(began.elapsed().as_secs_f64());
            assert_eq!(reply.into_inner().results[0].source(), Source::HitMemory);
        }
        median(times)
    }
}
