//! Inputs that failed for good, and how: in memory only, and in a bounded number. It knows nothing of how long that counts.

use quick_cache::sync::Cache;

use super::freshness::Stamp;
use crate::{error::Error, key::CacheKey};

/// Failures that are remembered. One more forgets another, which is then tried again.
const MOST: usize = 8192;

/// How an input failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The failure that callers were told.
    pub error: Error,
    /// When what failed began, and under which epoch.
    pub(super) stamp: Stamp,
}

/// Failures by key.
pub(super) struct Negatives(Cache<CacheKey, Failure>);

// === impl Negatives ===

impl Default for Negatives {
    fn default() -> Self {
        Negatives(Cache::new(MOST))
    }
}

impl Negatives {
    pub(super) fn get(&self, key: &CacheKey) -> Option<Failure> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: CacheKey, failure: Failure) {
        self.0.insert(key, failure);
    }

    pub(super) fn remove(&self, key: &CacheKey) {
        self.0.remove(key);
    }

    /// Removes the failure of `key` when it began at or before `before_ms`.
    pub(super) fn remove_covered(&self, key: &CacheKey, before_ms: u64) {
        self.0.remove_if(key, |failure| failure.stamp.created_ms <= before_ms);
    }

    /// Removes every failure that began at or before `before_ms`.
    pub(super) fn retain_after(&self, before_ms: u64) {
        self.0.retain(|_, failure| failure.stamp.created_ms > before_ms);
    }

    /// Removes every failure of another epoch.
    pub(super) fn retain_epoch(&self, epoch: u64) {
        self.0.retain(|_, failure| failure.stamp.epoch == epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn key(number: u64) -> CacheKey {
        CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn failure(created_ms: u64) -> Failure {
        let error = Error::new(ErrorKind::ImageUndecodable, "is no image");
        Failure { error, stamp: Stamp { created_ms, epoch: 0 } }
    }

    #[test]
    fn failures_are_bounded_in_number() {
        let negatives = Negatives::default();
        for number in 0..3 * MOST as u64 {
            negatives.insert(key(number), failure(0));
        }
        let kept = (0..3 * MOST as u64).filter(|number| negatives.get(&key(*number)).is_some());
        let kept = kept.count();
        assert!((MOST / 2..=MOST).contains(&kept), "{kept}");
    }

    #[test]
    fn only_covered_failures_are_forgotten() {
        let negatives = Negatives::default();
        negatives.insert(key(1), failure(10));
        negatives.insert(key(2), failure(11));
        negatives.remove_covered(&key(1), 9);
        assert!(negatives.get(&key(1)).is_some());
        negatives.retain_after(10);
        assert!(negatives.get(&key(1)).is_none() && negatives.get(&key(2)).is_some());
        negatives.retain_epoch(1);
        assert!(negatives.get(&key(2)).is_none());
    }
}
