//! What the writer of a store shares with those who read and wait: the databases in use, the queue, and how the tier is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::{
    control::Control,
    folder::Folder,
    pair::{Lookup, Pair, Put},
    queue::Queue,
    tier::{DiskState, Found, StoreConfig},
};
use crate::{
    cache::{
        entry::{HEADER_BYTES, Record},
        metrics::CacheMetrics,
        rules::Rules,
    },
    key::CacheKey,
};

/// Bytes of entries that wait to be written, at most.
const QUEUE_BYTES: u64 = 16 << 20;

/// What the writer shares with readers.
pub(super) struct Shared {
    pub(super) config: StoreConfig,
    pub(super) folder: Folder,
    pub(super) rules: Arc<Rules>,
    pub(super) metrics: CacheMetrics,
    pub(super) queue: Queue<Put, Control>,
    /// Notified whenever the tier goes off.
    pub(super) off: Notify,
    pub(super) published: RwLock<(u64, Pair)>,
    state: RwLock<DiskState>,
    opening: AtomicU64,
    last_number: AtomicU64,
    bytes: AtomicU64,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(config: StoreConfig, rules: Arc<Rules>, metrics: CacheMetrics) -> Self {
        let record = config.dimensions as u64 * 4 + HEADER_BYTES as u64;
        let queued = usize::try_from(QUEUE_BYTES / record).unwrap_or(1).clamp(16, 8192);
        Shared {
            folder: Folder::new(config.folder.clone()),
            rules,
            metrics,
            queue: Queue::new(queued),
            off: Notify::new(),
            published: RwLock::default(),
            state: RwLock::new(DiskState::Degraded { message: opening_sentence(&config) }),
            opening: AtomicU64::new(0),
            last_number: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            config,
        }
    }

    /// Bytes that may be written between two counts of all files; small against the limit, for sled writes more than it
    /// is given.
    pub(super) fn count_every(&self) -> u64 {
        (self.config.disk_bytes / 512).clamp(64 << 10, 4 << 20)
    }

    /// What readers see from now on.
    pub(super) fn publish(&self, pair: &Pair) {
        let mut published = self.published.write();
        let previous = std::mem::replace(&mut *published, (self.opening(), pair.clone()));
        drop(published);
        // The last owner closes a database: that is the caller's part, not a reader's behind this lock.
        drop(previous);
    }

    pub(super) fn is_on(&self) -> bool {
        self.published.read().1.young.is_some()
    }

    /// The entry under a key. May block for ever, on a disk that hangs. What it meets is reported however late it is.
    pub(super) fn read(&self, key: &CacheKey) -> Option<Found> {
        let (opening, pair) = self.published.read().clone();
        match pair.find(key, self.config.dimensions) {
            Ok(Lookup::Found { record: Record::Entry(entry), in_old }) => {
                Some(Found { entry, in_old })
            }
            Ok(Lookup::Found { record: Record::Tombstone { .. }, .. } | Lookup::Missing) => None,
            Ok(Lookup::Bad) => {
                self.metrics.bad_records.inc();
                self.queue.hint(Control::Remove(*key));
                None
            }
            Err(error) => {
                self.queue.hint(Control::Failed { opening, error });
                None
            }
        }
    }

    pub(super) fn state(&self) -> DiskState {
        self.state.read().clone()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn opening(&self) -> u64 {
        self.opening.load(Ordering::SeqCst)
    }

    pub(super) fn next_opening(&self) {
        self.opening.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn last_number(&self) -> u64 {
        self.last_number.load(Ordering::SeqCst)
    }

    pub(super) fn set_last_number(&self, number: u64) {
        self.last_number.fetch_max(number, Ordering::SeqCst);
    }

    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.metrics.disk_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn set_state(&self, state: DiskState) {
        *self.state.write() = state;
    }
}

// === free functions ===

fn opening_sentence(config: &StoreConfig) -> String {
    format!("cache folder {}: the disk cache is being opened", config.folder.display())
}
