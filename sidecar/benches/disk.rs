//! How many bytes the disk tier takes while 20 times its limit is written to it, every file counted, by length or by the
//! blocks that the file system gives it, whichever is more. One item in five was asked for before, so that entries are
//! copied from the older database to the younger one meanwhile.
//!
//! `cargo measure disk` on 2 busy cores:
//!
//! ```text
//! ratio disk-most-of-limit 0.945 target <= 1
//! value disk-looks 1318.000
//! value disk-written-of-limit 20.055
//! value disk-rotations 86.000
//! value disk-dropped-writes 407371.000
//! value disk-errors 0.000
//! value disk-failed-calls 0.000
//! value disk-seconds 154.624
//! ```

#[path = "support/callers.rs"]
#[expect(dead_code, reason = "it takes no times")]
mod callers;
#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it takes no times")]
mod measure;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/models.rs"]
#[expect(dead_code, reason = "its model is made")]
mod models;
#[path = "support/random.rs"]
mod random;
#[path = "support/report.rs"]
mod report;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "it is started once, and killed")]
mod server;
#[path = "support/tower.rs"]
#[expect(dead_code, reason = "its vectors are to be large, and computing them small")]
mod tower;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use callers::Callers;
use embark_crds::contract::files::CACHE_DIR;
use embark_sidecar::{
    cache::entry::HEADER_BYTES,
    pb::client::{EmbedRequest, Item, Tensor, item::Input},
};
use measure::{Target, ratio};
use random::Random;
use report::value;
use serde_json::json;
use server::Server;
use tokio::time::Instant;

/// The least that a disk tier may have.
const LIMIT: f64 = 64.0 * 1024.0 * 1024.0;
/// How often that is written.
const TIMES: f64 = 20.0;
/// Values of a vector, so that an entry has 4 KiB.
const DIMENSIONS: usize = 1024;
/// Bytes that are written for an entry: record and key.
const ENTRY_BYTES: f64 = (HEADER_BYTES + DIMENSIONS * 4 + 32) as f64;
/// Calls that are made at a time, and items of one.
const CALLS: usize = 64;
const ITEMS: u64 = 16;
/// How often the folder is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// A look at a folder again and again, in a thread of its own.
struct Samples {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(f64, u32)>,
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(churn());
}

async fn churn() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut manifest = tower::manifest(folder.path(), &[tower::FEATURES, DIMENSIONS]);
    manifest["spec"]["cache"] = json!({"mode": "MemoryAndDisk", "memory": {"sizeLimit": "16Mi"}, "disk": {"sizeLimit": "64Mi"}});
    let own = Arc::new(tempfile::tempdir().expect("a folder"));
    let server = Server::start_in(Arc::clone(&own), &manifest);
    let samples = Samples::of(own.path().join("data").join(CACHE_DIR));
    let callers = Callers::of(&server).await;
    let (began, mut random, mut asked, mut failed) = (Instant::now(), Random::new(1), 0, 0.0);
    let written = || server.metric("embark_cache_writes_total") * ENTRY_BYTES;
    while written() < TIMES * LIMIT {
        let calls = (0..CALLS).map(|_| call(&mut random, &mut asked)).collect();
        failed += callers.make(calls).await.failed;
    }
    let (most, looks) = samples.end();
    ratio("disk-most-of-limit", most / LIMIT, Target::AtMost(1.0));
    value("disk-looks", looks.into());
    value("disk-written-of-limit", written() / LIMIT);
    value("disk-rotations", server.metric("embark_cache_rotations_total"));
    value("disk-dropped-writes", server.metric("embark_cache_dropped_writes_total"));
    value("disk-errors", server.metric("embark_cache_disk_errors_total"));
    value("disk-failed-calls", failed);
    value("disk-seconds", began.elapsed().as_secs_f64());
}

/// Items that are new, and some that are not.
fn call(random: &mut Random, asked: &mut u64) -> EmbedRequest {
    let mut item = || {
        let number = if *asked > 0 && random.unit() < 0.2 {
            asked.saturating_sub(random.number() % 30_000).max(1)
        } else {
            *asked += 1;
            *asked
        };
        let mut values = Random::new(number);
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        let float_values = (0..tower::FEATURES).map(|_| values.unit() as f32).collect();
        let tensor = Tensor { float_values, ..Default::default() };
        Item { input: Some(Input::Tensor(tensor)) }
    };
    let items = (0..ITEMS).map(|_| item()).collect();
    EmbedRequest { items, omit_vectors: true, ..Default::default() }
}

// === impl Samples ===

impl Samples {
    fn of(folder: PathBuf) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut most, mut looks) = (0.0_f64, 0);
            while !stopped.load(Ordering::Acquire) {
                most = most.max(bytes(&folder));
                looks += 1;
                std::thread::park_timeout(EVERY);
            }
            (most, looks)
        });
        Samples { stop, thread }
    }

    /// The most bytes that there were, and how often it was looked.
    fn end(self) -> (f64, u32) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("it looks")
    }
}

// === free functions ===

/// Bytes of every file below a folder. What goes away meanwhile has none.
fn bytes(folder: &Path) -> f64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => bytes(&path),
        Ok(metadata) => metadata.len().max(metadata.blocks() * 512) as f64,
        Err(_) => 0.0,
    };
    entries.map(|entry| of(entry.path())).sum()
}
