//! The memory tier: the entries used most, in a bounded number of bytes. It knows nothing of freshness.

use prometheus_client::metrics::counter::Counter;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::entry::Entry;
use crate::key::CacheKey;

/// Bytes that an entry takes beside its vector: key, slab slot, hash table, ghost list, allocations' heads, and the
/// header of the record that it was read from.
const OVERHEAD_BYTES: u64 = 256;
/// At least so many entries fit into a shard, so that one never holds much less than its share of the limit.
const ENTRIES_PER_SHARD: u64 = 64;
/// More shards than this do not lower contention further.
const MOST_SHARDS: u64 = 64;

/// Entries in memory, weighed in bytes.
pub struct Hot {
    cache: Cache<CacheKey, Entry, ByBytes, DefaultHashBuilder, CountEvictions>,
}

#[derive(Clone)]
struct ByBytes;

#[derive(Clone)]
struct CountEvictions(Counter);

// === impl Hot ===

impl Hot {
    /// A tier of at most `limit_bytes` for vectors of `dimensions`.
    ///
    /// # Guarantees
    /// [`Hot::bytes`] never passes the limit.
    pub fn new(limit_bytes: u64, dimensions: usize, evictions: Counter) -> Self {
        let entry = weight(dimensions * 4);
        let shards = floor_power_of_two(limit_bytes / (entry * ENTRIES_PER_SHARD)).min(MOST_SHARDS);
        let items = usize::try_from(limit_bytes / entry).unwrap_or(usize::MAX).max(1);
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(items)
            // A shard's capacity is rounded up: cut first, so that their sum stays under the limit.
            .weight_capacity(limit_bytes / shards * shards)
            .build()
            .expect("both capacities are set");
        let hasher = DefaultHashBuilder::default();
        Hot { cache: Cache::with_options(options, ByBytes, hasher, CountEvictions(evictions)) }
    }

    /// The entry of `key`, fresh or not.
    pub fn get(&self, key: &CacheKey) -> Option<Entry> {
        self.cache.get(key)
    }

    /// Keeps an entry, unless it alone passes the limit.
    pub fn insert(&self, key: CacheKey, entry: Entry) {
        self.cache.insert(key, entry);
    }

    /// Removes the entry of `key` when it was created at or before `before_ms`.
    pub fn remove_covered(&self, key: &CacheKey, before_ms: u64) {
        self.cache.remove_if(key, |entry| entry.created_ms <= before_ms);
    }

    /// Removes every entry that was created at or before `before_ms`. Takes time in proportion to the entries.
    pub fn retain_after(&self, before_ms: u64) {
        self.cache.retain(|_, entry| entry.created_ms > before_ms);
    }

    /// Removes every entry of another epoch. Takes time in proportion to the entries.
    pub fn retain_epoch(&self, epoch: u64) {
        self.cache.retain(|_, entry| entry.epoch == epoch);
    }

    /// The number of entries.
    pub fn entries(&self) -> u64 {
        self.cache.len() as u64
    }

    /// Bytes of all entries, with their overhead.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

// === impl ByBytes ===

impl Weighter<CacheKey, Entry> for ByBytes {
    fn weight(&self, _: &CacheKey, entry: &Entry) -> u64 {
        weight(entry.vector.as_bytes().len())
    }
}

// === impl CountEvictions ===

impl Lifecycle<CacheKey, Entry> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: CacheKey, _: Entry) {
        self.0.inc();
    }
}

// === free functions ===

fn weight(vector_bytes: usize) -> u64 {
    OVERHEAD_BYTES + vector_bytes as u64
}

/// The largest power of two that is at most `number`; 1 for 0.
fn floor_power_of_two(number: u64) -> u64 {
    number.checked_ilog2().map_or(1, |bits| 1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::Vector;

    fn entry(dimensions: usize, created_ms: u64) -> Entry {
        Entry {
            vector: Vector::from_values(&vec![1.0; dimensions]),
            created_ms,
            epoch: 0,
            tokens: 0,
            chunks: 0,
            truncated: false,
            unknown_category: false,
        }
    }

    fn key(number: u64) -> CacheKey {
        CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn the_limit_in_bytes_is_never_passed() {
        for limit in [1, 1_000, 100_003, 10 << 20] {
            let hot = Hot::new(limit, 384, Counter::default());
            for number in 0..20_000 {
                hot.insert(key(number), entry(384, 0));
                if number % 64 == 0 {
                    assert!(hot.bytes() <= limit, "{} bytes of {limit}", hot.bytes());
                }
            }
            assert!(hot.bytes() <= limit);
        }
    }

    #[test]
    fn most_of_the_limit_is_used_and_evictions_are_counted() {
        let (limit, evictions) = (4 << 20, Counter::default());
        let hot = Hot::new(limit, 384, evictions.clone());
        for number in 0..20_000 {
            hot.insert(key(number), entry(384, 0));
        }
        assert!(hot.bytes() > limit * 9 / 10, "{} bytes of {limit}", hot.bytes());
        assert_eq!(evictions.get(), 20_000 - hot.entries());
    }

    #[test]
    fn one_entry_is_under_a_sixty_fourth_of_a_shard() {
        for limit in [1 << 20, 8 << 20, 128 << 20, 1 << 30] {
            let hot = Hot::new(limit, 384, Counter::default());
            assert!(hot.cache.shard_capacity() / weight(384 * 4) >= ENTRIES_PER_SHARD, "{limit}");
        }
    }

    #[test]
    fn only_covered_entries_are_removed() {
        let hot = Hot::new(1 << 20, 4, Counter::default());
        hot.insert(key(1), entry(4, 10));
        hot.remove_covered(&key(1), 9);
        assert!(hot.get(&key(1)).is_some());
        hot.remove_covered(&key(1), 10);
        assert!(hot.get(&key(1)).is_none());
        hot.insert(key(1), entry(4, 10));
        hot.insert(key(2), entry(4, 11));
        hot.retain_after(10);
        assert_eq!((hot.get(&key(1)).is_some(), hot.get(&key(2)).is_some()), (false, true));
    }
}
