//! The cache as its callers see it: what a lookup gives after fills, invalidations, restarts and copies.

mod model;
mod negative;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::FutureExt as _;

use super::{block_on::block_on, *};
use crate::{embedding::Vector, model::test_support};

const DIMENSIONS: usize = 16;
const SOON: Duration = Duration::from_secs(20);

/// A clock that tests turn.
#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Hands {
    fn turn_to(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<Hands>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(Hands::default());
        clock.turn_to(1_000_000);
        Bench { dir: tempfile::tempdir().unwrap(), clock }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    async fn open(&self) -> Arc<Cache> {
        self.open_at(&self.folder(), policy()).await
    }

    async fn open_at(&self, folder: &Path, policy: CachePolicy) -> Arc<Cache> {
        let storage = CacheStorage {
            mode: CacheMode::MemoryAndDisk,
            memory_bytes: 1 << 20,
            disk_bytes: 64 << 20,
        };
        let config = CacheConfig { storage, dimensions: DIMENSIONS, folder: folder.to_owned() };
        let policy = Arc::new(LivePolicy::new(policy, DIMENSIONS));
        let cache = Cache::open(config, policy, self.clock.clone(), CacheMetrics::default()).await;
        assert_eq!(cache.status().disk, DiskState::Healthy);
        cache
    }

    /// Closes, and opens again with an empty memory.
    async fn restart(&self, cache: Arc<Cache>) -> Arc<Cache> {
        assert!(cache.close(SOON).await);
        self.open().await
    }
}

fn policy() -> CachePolicy {
    let (ttl, ttl_jitter_percent) = (Duration::from_secs(100), 0);
    CachePolicy { ttl, ttl_jitter_percent, allow_invalidation: true, ..test_support::policy() }
}

fn live() -> Arc<LivePolicy> {
    Arc::new(LivePolicy::new(policy(), DIMENSIONS))
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Memory,
    Disk,
}

fn key(number: u64) -> CacheKey {
    CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn embedding(number: u64) -> Embedding {
    let values = vec![number as f32; DIMENSIONS];
    Embedding { vector: Vector::from_values(&values), tokens: 3, truncated: false }
}

fn fill(cache: &Cache, number: u64) {
    let operation = cache.begin();
    cache.fill(&operation, key(number), operation.entry(&embedding(number)));
}

fn memory(cache: &Cache, number: u64) -> Option<Hit> {
    cache.lookup_memory(&cache.policy.load().cache, &key(number), cache.now_ms())
}

fn disk(cache: &Cache, number: u64) -> Option<Hit> {
    block_on(cache.lookup_disk(&cache.begin(), &[key(number)])).remove(0)
}

fn found(cache: &Cache, number: u64) -> Option<Tier> {
    let on_disk = || disk(cache, number).map(|_| Tier::Disk);
    memory(cache, number).map(|_| Tier::Memory).or_else(on_disk)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn an_entry_is_found_in_memory_and_after_a_restart_on_disk_and_then_in_memory() {
    let bench = Bench::new();
    let cache = bench.open().await;
    assert_eq!(found(&cache, 1), None);
    fill(&cache, 1);
    bench.clock.turn_to(1_000_070);
    let hit = memory(&cache, 1).unwrap();
    assert_eq!((hit.age_ms, hit.entry.tokens), (70, 3));
    assert_eq!(hit.entry.vector, embedding(1).vector);
    let cache = bench.restart(cache).await;
    assert_eq!(memory(&cache, 1), None);
    let hit = disk(&cache, 1).unwrap();
    assert_eq!((hit.age_ms, hit.entry.vector), (70, embedding(1).vector));
    assert_eq!(found(&cache, 1), Some(Tier::Memory));
}

#[tokio::test]
async fn an_expired_entry_is_a_miss_in_both_tiers_and_can_be_filled_again() {
    let bench = Bench::new();
    let cache = bench.open().await;
    fill(&cache, 1);
    bench.clock.turn_to(1_099_999);
    assert_eq!(found(&cache, 1), Some(Tier::Memory));
    bench.clock.turn_to(1_100_000);
    assert!(cache.flush(SOON).await);
    assert_eq!((memory(&cache, 1), disk(&cache, 1)), (None, None));
    fill(&cache, 1);
    let cache = bench.restart(cache).await;
    assert_eq!(found(&cache, 1), Some(Tier::Disk));
}

#[tokio::test]
async fn a_raised_epoch_purges_and_a_lower_one_is_refused_by_name() {
    let bench = Bench::new();
    let cache = bench.open().await;
    fill(&cache, 1);
    assert!(cache.close(SOON).await);
    let cache = bench.open_at(&bench.folder(), CachePolicy { epoch: 7, ..policy() }).await;
    assert_eq!((found(&cache, 1), cache.status().epoch_refused), (None, None));
    fill(&cache, 2);
    assert!(cache.close(SOON).await);
    let cache = bench.open_at(&bench.folder(), CachePolicy { epoch: 6, ..policy() }).await;
    assert_eq!((found(&cache, 1), found(&cache, 2)), (None, Some(Tier::Disk)));
    let status = cache.status();
    assert_eq!(status.epoch, 7);
    let refused = status.epoch_refused.unwrap();
    assert_eq!((&*refused.field, &*refused.value), ("spec.cache.epoch", "6"));
    assert!(refused.message.contains("highest epoch seen, 7"), "{}", refused.message);
}

#[tokio::test]
async fn an_invalidation_of_all_holds_in_both_tiers_and_after_restarts() {
    let bench = Bench::new();
    let cache = bench.open().await;
    fill(&cache, 1);
    bench.clock.turn_to(1_000_010);
    cache.invalidate_all(1_000_000).await.unwrap();
    fill(&cache, 2);
    assert_eq!((found(&cache, 1), found(&cache, 2)), (None, Some(Tier::Memory)));
    assert_eq!(cache.status().memory_entries, 1);
    let cache = bench.restart(cache).await;
    let cache = bench.restart(cache).await;
    assert_eq!((found(&cache, 1), found(&cache, 2)), (None, Some(Tier::Disk)));
}

#[tokio::test]
async fn an_invalidation_of_items_holds_for_them_alone() {
    let bench = Bench::new();
    let cache = bench.open().await;
    (1..=3).for_each(|number| fill(&cache, number));
    let cache = bench.restart(cache).await;
    assert_eq!(found(&cache, 1), Some(Tier::Disk));
    cache.invalidate_items(vec![key(1), key(2)], 1_000_000).await.unwrap();
    assert_eq!(
        (1..=3).map(|n| found(&cache, n).is_some()).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(cache.memory.rules.items(), 0);
    let cache = bench.restart(cache).await;
    assert_eq!(
        (1..=3).map(|n| found(&cache, n).is_some()).collect::<Vec<_>>(),
        [false, false, true]
    );
    bench.clock.turn_to(1_000_001);
    fill(&cache, 1);
    let cache = bench.restart(cache).await;
    assert_eq!(found(&cache, 1), Some(Tier::Disk));
}

#[tokio::test]
async fn what_an_earlier_operation_fills_after_an_invalidation_is_never_given() {
    let bench = Bench::new();
    let cache = bench.open().await;
    for all in [false, true] {
        let operation = cache.begin();
        if all {
            cache.invalidate_all(bench.clock.now_ms()).await.unwrap();
        } else {
            cache.invalidate_items(vec![key(1)], bench.clock.now_ms()).await.unwrap();
        }
        let entry = operation.entry(&embedding(1));
        cache.fill(&operation, key(1), entry.clone());
        assert_eq!(found(&cache, 1), None);
        // Past the check of fill: it saw no rule, was held up, and goes on now.
        operation.memory.insert(&key(1), &entry);
        cache.store.as_ref().unwrap().put(key(1), entry);
        assert_eq!(found(&cache, 1), None);
        drop(operation);
        assert!(cache.flush(SOON).await);
        assert_eq!((found(&cache, 1), cache.memory.rules.items()), (None, 0));
    }
    let cache = bench.restart(cache).await;
    assert_eq!(found(&cache, 1), None);
}

#[tokio::test]
async fn what_a_disk_read_brings_back_after_an_invalidation_is_never_given() {
    let bench = Bench::new();
    let cache = bench.open().await;
    fill(&cache, 1);
    let cache = bench.restart(cache).await;
    let operation = cache.begin();
    let found_on_disk = block_on(cache.store.as_ref().unwrap().get(&[key(1)])).remove(0).unwrap();
    cache.invalidate_items(vec![key(1)], 1_000_000).await.unwrap();
    // The read ended before the invalidation; it promotes after it.
    operation.memory.insert(&key(1), &found_on_disk.entry);
    cache.store.as_ref().unwrap().promote(key(1), found_on_disk.entry);
    assert_eq!((found(&cache, 1), cache.memory.rules.items()), (None, 1));
    drop(operation);
    assert_eq!((found(&cache, 1), cache.memory.rules.items()), (None, 0));
    let cache = bench.restart(cache).await;
    assert_eq!(found(&cache, 1), None);
}

#[tokio::test]
async fn an_invalidation_that_waits_for_its_turn_keeps_no_caller_waiting() {
    let bench = Bench::new();
    let cache = bench.open().await;
    fill(&cache, 1);
    let turn = cache.forgetting.clone().acquire_owned().await.unwrap();
    let keys = (0..10_000).map(key).collect();
    let mut forgetting = std::pin::pin!(cache.invalidate_items(keys, 1_000_000));
    assert!(forgetting.as_mut().now_or_never().is_none());
    // Nothing was done on this thread.
    assert_eq!((cache.memory.rules.items(), found(&cache, 1)), (0, Some(Tier::Memory)));
    drop(turn);
    forgetting.await.unwrap();
    assert_eq!((cache.memory.rules.items(), found(&cache, 1)), (0, None));
}

#[tokio::test]
async fn a_write_that_still_waits_is_covered_by_an_invalidation() {
    let bench = Bench::new();
    let cache = bench.open().await;
    (0..500).for_each(|number| fill(&cache, number));
    cache.invalidate_items((0..250).map(key).collect(), 1_000_000).await.unwrap();
    let cache = bench.restart(cache).await;
    let left: Vec<_> = (0..500).filter(|n| found(&cache, *n).is_some()).collect();
    assert_eq!(left, (250..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_copy_taken_while_in_use_opens_and_keeps_rules_as_after_a_kill() {
    let bench = Bench::new();
    let cache = bench.open().await;
    (0..300).for_each(|number| fill(&cache, number));
    assert!(cache.flush(SOON).await);
    cache.invalidate_items((0..10).map(key).collect(), 1_000_000).await.unwrap();
    bench.clock.turn_to(1_000_001);
    (300..400).for_each(|number| fill(&cache, number));
    assert!(cache.flush(SOON).await);
    copy(&bench.folder(), &bench.dir.path().join("copy"));
    let copied = bench.open_at(&bench.dir.path().join("copy"), policy()).await;
    let given: Vec<_> = (0..400).filter(|n| found(&copied, *n).is_some()).collect();
    assert_eq!(given, (300..400).collect::<Vec<_>>(), "what an item rule may cover is given up");
    cache.invalidate_all(1_000_001).await.unwrap();
    copy(&bench.folder(), &bench.dir.path().join("second"));
    let copied = bench.open_at(&bench.dir.path().join("second"), policy()).await;
    assert!((0..400).all(|n| found(&copied, n).is_none()));
}

#[tokio::test]
async fn without_item_rules_a_copy_taken_while_in_use_keeps_its_entries() {
    let bench = Bench::new();
    let cache = bench.open().await;
    (0..300).for_each(|number| fill(&cache, number));
    assert!(cache.flush(SOON).await);
    copy(&bench.folder(), &bench.dir.path().join("copy"));
    let copied = bench.open_at(&bench.dir.path().join("copy"), policy()).await;
    assert!((0..300).all(|n| found(&copied, n) == Some(Tier::Disk)));
}

#[tokio::test]
async fn smaller_modes_have_fewer_tiers() {
    let bench = Bench::new();
    for (mode, expected) in [(CacheMode::Memory, Some(Tier::Memory)), (CacheMode::Disabled, None)] {
        let storage = CacheStorage { mode, memory_bytes: 1 << 20, disk_bytes: 64 << 20 };
        let config = CacheConfig { storage, dimensions: DIMENSIONS, folder: bench.folder() };
        let cache = Cache::open(config, live(), bench.clock.clone(), CacheMetrics::default()).await;
        fill(&cache, 1);
        assert_eq!(found(&cache, 1), expected);
        cache.invalidate_items(vec![key(1)], 1_000_000).await.unwrap();
        cache.invalidate_all(1_000_000).await.unwrap();
        assert_eq!((found(&cache, 1), cache.status().disk), (None, DiskState::Off));
        assert!(cache.close(SOON).await && !bench.folder().exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lookup_gives_what_was_invalidated_while_fills_and_reads_race() {
    let bench = Bench::new();
    let cache = bench.open().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = |seed: u64| {
        let (cache, stop) = (cache.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut number = seed;
            while !stop.load(Ordering::SeqCst) {
                number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let item = (number >> 33) % 32;
                let operation = cache.begin();
                if number & 1 == 0 {
                    cache.fill(&operation, key(item), operation.entry(&embedding(item)));
                } else {
                    block_on(cache.lookup_disk(&operation, &[key(item)]));
                }
            }
        })
    };
    let racers = [racer(1), racer(2)];
    for round in 0..200 {
        let before = bench.clock.now_ms();
        let item = round % 32;
        bench.clock.turn_to(before + 1);
        cache.invalidate_items(vec![key(item)], before).await.unwrap();
        for _ in 0..20 {
            let hit = memory(&cache, item).or_else(|| disk(&cache, item));
            let created = hit.map(|hit| hit.entry.created_ms);
            assert!(created.is_none_or(|created| created > before), "{created:?} <= {before}");
        }
    }
    stop.store(true, Ordering::SeqCst);
    racers.into_iter().for_each(|racer| racer.join().unwrap());
}
