//! One model's cache: a memory tier over a disk tier, under one policy.
//!
//! ```text
//! lookup_memory ── hit ──────────────────────────────── no await, no allocation
//!   begin ─ lookup_disk ── hit ── copied to memory ──── many keys at once, on a reader's thread
//!         └ compute ── fill ── memory, and disk behind
//! invalidate ── rule in memory ── memory purged ── rule on disk ── rule forgotten when nothing can break it
//! ```
//! What is in a tier is never trusted for being there: every entry is judged at every lookup by the policy, the epoch and
//! the rules of that moment. The disk tier may fail in any way; the cache then goes on in memory alone and says so.

pub mod entry;
pub mod freshness;
pub mod hot;
mod invalidate;
pub mod metrics;
pub mod negative;
pub mod rules;
pub mod store;

#[cfg(test)]
pub(crate) mod block_on;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use embark_crds::contract::{CacheMode, CachePolicy, CacheStorage};
use tokio::sync::Semaphore;

use self::{
    entry::Entry,
    freshness::{Stamp, Terms, Verdict, judge},
    hot::Hot,
    metrics::CacheMetrics,
    negative::{Failure, Negatives},
    rules::Rules,
    store::{DiskState, Found, Store, StoreConfig},
};
use crate::{
    clock::Clock,
    embedding::Embedding,
    error::{Error, ErrorKind},
    key::CacheKey,
    policy::LivePolicy,
};

/// What a cache is made for; the policy is not part of it.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Which tiers, and how large.
    pub storage: CacheStorage,
    /// The length of the model's full vectors.
    pub dimensions: usize,
    /// The model's own folder for the disk tier; nothing else may be in it.
    pub folder: PathBuf,
}

/// One model's cache.
pub struct Cache {
    policy: Arc<LivePolicy>,
    clock: Arc<dyn Clock>,
    memory: Arc<Memory>,
    store: Option<Store>,
    /// The turn of an invalidation's work.
    forgetting: Arc<Semaphore>,
}

/// One computation or disk read under way. While it lives, no rule on items that it might break is forgotten.
pub struct Operation {
    memory: Arc<Memory>,
    generation: u64,
    created_ms: u64,
    epoch: u64,
}

/// An entry that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The entry.
    pub entry: Entry,
    /// Milliseconds since its computation began.
    pub age_ms: u64,
    /// Whether it is past its time to live: then it is to be computed anew.
    pub is_stale: bool,
}

/// How a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// Entries in memory.
    pub memory_entries: u64,
    /// Bytes that they take.
    pub memory_bytes: u64,
    /// How the disk tier is.
    pub disk: DiskState,
    /// Bytes of every file of the disk tier, when last counted.
    pub disk_bytes: u64,
    /// The epoch whose entries count.
    pub epoch: u64,
    /// Why that is not the policy's.
    pub epoch_refused: Option<Error>,
}

/// The memory tier, what failed for good, and the rules over it all.
struct Memory {
    hot: Option<Hot>,
    negatives: Negatives,
    rules: Arc<Rules>,
}

/// Deletes the caches in a model's folder that are not among these spaces' and that nobody has open. What cannot be deleted
/// is left, and only warned of. May block.
pub fn discard_others(folder: &std::path::Path, spaces: &[String]) {
    store::discard_others(folder, spaces);
}

// === impl Cache ===

impl Cache {
    /// Opens a cache. Never fails: a disk tier that cannot be opened is off, says why in [`Cache::status`], and is tried
    /// again. Takes at most some seconds.
    pub async fn open(
        config: CacheConfig,
        policy: Arc<LivePolicy>,
        clock: Arc<dyn Clock>,
        metrics: CacheMetrics,
    ) -> Arc<Self> {
        let CacheConfig { storage, dimensions, folder } = config;
        let rules = Arc::new(Rules::default());
        rules.raise_epoch(policy.load().cache.epoch);
        let hot = (storage.mode != CacheMode::Disabled)
            .then(|| Hot::new(storage.memory_bytes, dimensions, metrics.evictions.clone()));
        let store = match storage.mode {
            CacheMode::MemoryAndDisk => {
                let config = StoreConfig { folder, disk_bytes: storage.disk_bytes, dimensions };
                Some(Store::open(config, rules.clone(), metrics).await)
            }
            CacheMode::Memory | CacheMode::Disabled => None,
        };
        let cache = Cache {
            policy,
            clock,
            memory: Arc::new(Memory { hot, negatives: Negatives::default(), rules }),
            store,
            forgetting: Arc::new(Semaphore::new(1)),
        };
        if let Some(refused) = cache.epoch_refused() {
            tracing::warn!("{refused}");
        }
        Arc::new(cache)
    }

    /// Begins a disk read or a computation, dated now. Dropping the operation ends it.
    pub fn begin(&self) -> Operation {
        // The generation first: a rule dated after the operation must find it under way.
        let generation = self.memory.rules.begin();
        Operation {
            generation,
            created_ms: self.clock.now_ms(),
            epoch: self.memory.rules.epoch(),
            memory: self.memory.clone(),
        }
    }

    /// The entry of a key in memory, if it counts under `policy`. Never waits for a disk or a computation.
    pub fn lookup_memory(&self, policy: &CachePolicy, key: &CacheKey, now_ms: u64) -> Option<Hit> {
        // The rules first: one that is forgotten before it is read would be missed, and what it covers found.
        let standing = self.memory.rules.standing(key);
        let entry = self.memory.hot.as_ref()?.get(key)?;
        hit(key, entry, Terms { policy, standing }, now_ms)
    }

    /// Whether there is a disk tier to look into.
    pub fn has_disk(&self) -> bool {
        self.store.as_ref().is_some_and(Store::is_on)
    }

    /// The entries of keys on disk that count, in their order; they are in memory from then on. What takes too long to
    /// read is a miss.
    pub async fn lookup_disk(&self, operation: &Operation, keys: &[CacheKey]) -> Vec<Option<Hit>> {
        let Some(store) = &self.store else { return vec![None; keys.len()] };
        let found = store.get(keys).await;
        // Entries are judged by the present: the read may have taken its time.
        let (policy, now_ms) = (self.policy.load(), self.clock.now_ms());
        let judged = keys.iter().zip(found).map(|(key, found)| {
            let Found { entry, in_old } = found?;
            // The rules last: none that came during the read is forgotten before the operation ends.
            let standing = self.memory.rules.standing(key);
            let hit = hit(key, entry, Terms { policy: &policy.cache, standing }, now_ms)?;
            operation.memory.insert(key, &hit.entry);
            if in_old {
                store.promote(*key, hit.entry.clone());
            }
            Some(hit)
        });
        judged.collect()
    }

    /// Whether what an operation brings for a key counts, as far as is known.
    pub fn counts(&self, operation: &Operation, key: &CacheKey) -> bool {
        let standing = self.memory.rules.standing(key);
        operation.epoch == standing.epoch && !standing.invalidates(operation.created_ms)
    }

    /// Keeps what an operation computed: in memory at once, on disk behind.
    pub fn fill(&self, operation: &Operation, key: CacheKey, entry: Entry) {
        if !self.counts(operation, &key) {
            return;
        }
        operation.memory.negatives.remove(&key);
        operation.memory.insert(&key, &entry);
        if let Some(store) = &self.store {
            store.put(key, entry);
        }
    }

    /// How an input failed for good, if that counts under `policy`, and how many milliseconds ago it was tried.
    pub fn failure(
        &self,
        policy: &CachePolicy,
        key: &CacheKey,
        now_ms: u64,
    ) -> Option<(Error, u64)> {
        if policy.negative_ttl.is_zero() {
            return None;
        }
        // The rules first, as for entries.
        let standing = self.memory.rules.standing(key);
        let Failure { error, stamp } = self.memory.negatives.get(key)?;
        let age_ms = now_ms.saturating_sub(stamp.created_ms);
        let counts = stamp.epoch == standing.epoch
            && !standing.invalidates(stamp.created_ms)
            && u128::from(age_ms) < policy.negative_ttl.as_millis();
        counts.then_some((error, age_ms))
    }

    /// Forgets what failed, as when its bounds are others now.
    pub fn forget_failures(&self) {
        self.memory.negatives.retain_after(u64::MAX);
    }

    /// Remembers how an operation failed, where that is for good and the policy of now asks for it.
    pub fn fail(&self, operation: &Operation, key: CacheKey, error: &Error) {
        let asked = !self.policy.load().cache.negative_ttl.is_zero();
        if asked && error.kind.is_for_good() && self.counts(operation, &key) {
            let stamp = Stamp { created_ms: operation.created_ms, epoch: operation.epoch };
            operation.memory.negatives.insert(key, Failure { error: error.clone(), stamp });
        }
    }

    /// How the cache is.
    pub fn status(&self) -> CacheStatus {
        let hot = self.memory.hot.as_ref();
        CacheStatus {
            memory_entries: hot.map_or(0, Hot::entries),
            memory_bytes: hot.map_or(0, Hot::bytes),
            disk: self.store.as_ref().map_or(DiskState::Off, Store::state),
            disk_bytes: self.store.as_ref().map_or(0, Store::bytes),
            epoch: self.memory.rules.epoch(),
            epoch_refused: self.epoch_refused(),
        }
    }

    /// The clock that dates entries.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Hands everything filled so far to the operating system; `false` when that takes longer than `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        match &self.store {
            Some(store) => store.flush(limit).await,
            None => true,
        }
    }

    /// Writes what waits and closes the disk tier; `false` when that takes longer than `limit`. Lookups go on in memory.
    pub async fn close(&self, limit: Duration) -> bool {
        match &self.store {
            Some(store) => store.close(limit).await,
            None => true,
        }
    }

    /// Makes the disk tier hang until what it gives is dropped.
    #[cfg(test)]
    pub(crate) fn hold_disk_up(&self) -> Vec<std::sync::mpsc::Sender<()>> {
        self.store.as_ref().expect("it has a disk tier").hold_readers_up()
    }

    fn epoch_refused(&self) -> Option<Error> {
        let (asked, seen) = (self.policy.load().cache.epoch, self.memory.rules.epoch());
        (asked < seen).then(|| {
            let allowed = format!("is below the highest epoch seen, {seen}, which stays in force");
            Error::of_field(ErrorKind::Malformed, "spec.cache.epoch", &asked.to_string(), allowed)
        })
    }
}

// === impl Operation ===

impl Operation {
    /// When it began, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// What it computed, dated with its beginning.
    pub fn entry(&self, embedding: &Embedding) -> Entry {
        Entry::of(embedding, self.created_ms, self.epoch)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let purge = |key: &CacheKey, before_ms| self.memory.purge(key, before_ms);
        self.memory.rules.end(self.generation, purge);
    }
}

// === impl Memory ===

impl Memory {
    /// Only under an operation: what a rule that comes meanwhile covers is purged when it is forgotten.
    fn insert(&self, key: &CacheKey, entry: &Entry) {
        if let Some(hot) = &self.hot {
            hot.insert(*key, entry.clone());
        }
    }

    fn purge(&self, key: &CacheKey, before_ms: u64) {
        self.negatives.remove_covered(key, before_ms);
        if let Some(hot) = &self.hot {
            hot.remove_covered(key, before_ms);
        }
    }
}

// === free functions ===

/// The entry, if it counts.
fn hit(key: &CacheKey, entry: Entry, terms: Terms<'_>, now_ms: u64) -> Option<Hit> {
    let stamp = Stamp { created_ms: entry.created_ms, epoch: entry.epoch };
    let is_stale = match judge(key, stamp, terms, now_ms) {
        Verdict::Fresh => false,
        Verdict::Stale => true,
        Verdict::Expired | Verdict::OtherEpoch | Verdict::Invalidated | Verdict::FromTheFuture => {
            return None;
        }
    };
    Some(Hit { age_ms: now_ms.saturating_sub(entry.created_ms), entry, is_stale })
}
