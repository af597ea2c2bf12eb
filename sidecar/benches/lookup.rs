//! What an item costs that is in memory: its key, and the look into the cache, where 100,000 entries are.
//!
//! `cargo measure lookup` on 2 cores of a machine that did little else:
//!
//! ```text
//! ratio lookup-us 0.653 target <= 2
//! value lookup-4KiB-us 4.365
//! ```
//!
//! 4 KiB cost their hash.

#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it measures this process alone")]
mod measure;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "it needs numbers alone")]
mod random;
#[path = "support/report.rs"]
mod report;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use embark_crds::{
    contract::{CacheMode, CachePolicy, CacheStorage},
    digest::SpaceId,
    manifest,
    resolve::{Target as Place, resolve},
};
use embark_sidecar::{
    cache::{Cache, CacheConfig},
    clock::SystemClock,
    embedding::{Embedding, Vector},
    input::{Input, Text},
    key::CacheKey,
    metrics::Metrics,
    policy::LivePolicy,
};
use measure::{BLOCKS, Target, median, pin, ratio};
use random::Random;
use report::value;
use tokio::time::Instant;

/// Entries in the cache.
const ENTRIES: u64 = 100_000;
/// Lookups of a block.
const LOOKUPS: usize = 20_000;
/// Values of a vector.
const DIMENSIONS: usize = 384;

/// A full cache.
struct Full {
    cache: Arc<Cache>,
    policy: CachePolicy,
    space: SpaceId,
    bytes: usize,
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    pin(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        ratio("lookup-us", Full::of(64).await.p50_micros(), Target::AtMost(2.0));
        value("lookup-4KiB-us", Full::of(4096).await.p50_micros());
    });
}

// === impl Full ===

impl Full {
    /// A cache of texts of so many bytes.
    async fn of(bytes: usize) -> Self {
        let policy = policy();
        let live = Arc::new(LivePolicy::new(policy.clone(), DIMENSIONS));
        let storage = CacheStorage {
            mode: CacheMode::Memory,
            memory_bytes: ENTRIES * (DIMENSIONS as u64 * 4 + 1024),
            disk_bytes: 0,
        };
        let config = CacheConfig { storage, dimensions: DIMENSIONS, folder: PathBuf::new() };
        let metrics = Metrics::default().model("bench").cache.clone();
        let cache = Cache::open(config, live, Arc::new(SystemClock), metrics).await;
        let full = Full { cache, policy, space: SpaceId::from_bytes([7; 32]), bytes };
        let operation = full.cache.begin();
        for number in 0..ENTRIES {
            let vector = Vector::from_values(&[0.5; DIMENSIONS]);
            let embedding = Embedding { vector, tokens: 16, truncated: false };
            full.cache.fill(&operation, full.key(&full.input(number)), operation.entry(&embedding));
        }
        assert_eq!(full.cache.status().memory_entries, ENTRIES, "all of them are there");
        drop(operation);
        full
    }

    fn input(&self, number: u64) -> Input {
        let text = format!("{number:0>width$}", width = self.bytes);
        Input::Text(Text::from_utf8(Bytes::from(text)).expect("digits"))
    }

    fn key(&self, input: &Input) -> CacheKey {
        CacheKey::of_input(&self.space, "", input)
    }

    /// The median of the blocks' medians.
    fn p50_micros(&self) -> f64 {
        let mut random = Random::new(1);
        median((0..BLOCKS).map(|_| self.block(&mut random)).collect())
    }

    fn block(&self, random: &mut Random) -> f64 {
        let mut times = Vec::with_capacity(LOOKUPS);
        let now_ms = self.cache.now_ms();
        for _ in 0..LOOKUPS {
            // As a request's own: just made, so that it is in the processor's caches. What it is looked up in is not.
            let input = self.input(random.number() % ENTRIES);
            let began = Instant::now();
            let hit = self.cache.lookup_memory(&self.policy, &self.key(&input), now_ms);
            let took = began.elapsed();
            assert!(hit.is_some_and(|hit| hit.entry.vector.dimensions() == DIMENSIONS));
            times.push(took.as_secs_f64() * 1e6);
        }
        median(times)
    }
}

// === free functions ===

/// The default policy.
fn policy() -> CachePolicy {
    let text = include_str!("../../examples/quickstart.yaml");
    let manifest = manifest::read(text).expect("it is a manifest").remove(0);
    let contract = resolve(&manifest.metadata.name, &manifest.spec, Place::Local);
    contract.expect("it is good").policy
}
