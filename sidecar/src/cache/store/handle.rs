//! The disk tier as the rest of the cache sees it: a lookup that blocks, writes that do not, rules that are waited for, and
//! a state. Opening again after a failure is its own affair.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{sync::Notify, task::spawn_blocking, time::timeout};

use super::{
    folder::Folder,
    pair::{Lookup, Pair, Put, PutKind},
    queue::Queue,
    writer::{Control, Writer},
};
use crate::{
    cache::{
        entry::{Entry, HEADER_BYTES, Record},
        metrics::CacheMetrics,
        rules::Rules,
    },
    key::CacheKey,
};

/// Bytes of entries that wait to be written, at most.
const QUEUE_BYTES: u64 = 16 << 20;
/// How long a caller waits for a rule to be on disk: longer than the writer may take for what comes before it.
const RULE_LIMIT: Duration = Duration::from_secs(30);
/// How long opening may keep the process from starting.
const READY_LIMIT: Duration = Duration::from_millis(4500);
/// The first pause before the tier is tried again, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Where a disk tier is, and what it holds.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The model's own cache folder.
    pub folder: PathBuf,
    /// Bytes that all files in it may take.
    pub disk_bytes: u64,
    /// The length of the model's vectors.
    pub dimensions: usize,
}

/// How the disk tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// There is none.
    Off,
    /// It works.
    Healthy,
    /// It is off and will be tried again.
    Degraded {
        /// Why, as a sentence with the folder and the cause.
        message: String,
    },
}

/// An entry found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry, fresh or not.
    pub entry: Entry,
    /// Whether it would go with the old database: [`Store::promote`] it.
    pub in_old: bool,
}

/// A model's disk tier.
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

/// What the writer shares with readers.
pub(super) struct Shared {
    pub(super) config: StoreConfig,
    pub(super) folder: Folder,
    pub(super) rules: Arc<Rules>,
    pub(super) metrics: CacheMetrics,
    pub(super) queue: Queue<Put, Control>,
    /// Notified whenever the tier goes off.
    pub(super) off: Notify,
    closed: Notify,
    pub(super) published: RwLock<(u64, Pair)>,
    state: RwLock<DiskState>,
    opening: AtomicU64,
    last_number: AtomicU64,
    bytes: AtomicU64,
}

// === impl Store ===

impl Store {
    /// Opens the tier; when that fails it is off, says why, and is tried again. Waits at most some seconds.
    pub async fn open(config: StoreConfig, rules: Arc<Rules>, metrics: CacheMetrics) -> Self {
        let record = config.dimensions as u64 * 4 + HEADER_BYTES as u64;
        let queued = usize::try_from(QUEUE_BYTES / record).unwrap_or(1).clamp(16, 8192);
        let shared = Arc::new(Shared {
            folder: Folder::new(config.folder.clone()),
            rules,
            metrics,
            queue: Queue::new(queued),
            off: Notify::new(),
            closed: Notify::new(),
            published: RwLock::default(),
            state: RwLock::new(DiskState::Degraded { message: opening_sentence(&config) }),
            opening: AtomicU64::new(0),
            last_number: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            config,
        });
        let (ready, opened) = sync_channel(1);
        let writer = Writer::new(shared.clone());
        let thread = thread::Builder::new().name("embark-store".to_owned());
        match thread.spawn(move || writer.run(ready)) {
            Ok(_) => drop(wait(opened, READY_LIMIT).await),
            Err(error) => {
                let message = format!("the disk cache's thread cannot start: {error}");
                shared.set_state(DiskState::Degraded { message });
            }
        }
        tokio::spawn(reopen(shared.clone()));
        Store { shared }
    }

    /// The entry under a key, fresh or not. Blocks for a disk read.
    pub fn get(&self, key: &CacheKey) -> Option<Found> {
        let (opening, pair) = self.shared.published.read().clone();
        pair.young.as_ref()?;
        match pair.find(key, self.shared.config.dimensions) {
            Ok(Lookup::Found { record: Record::Entry(entry), in_old }) => {
                Some(Found { entry, in_old })
            }
            Ok(Lookup::Found { record: Record::Tombstone { .. }, .. } | Lookup::Missing) => None,
            Ok(Lookup::Bad) => {
                self.shared.metrics.bad_records.inc();
                self.shared.queue.hint(Control::Remove(*key));
                None
            }
            Err(error) => {
                self.shared.queue.hint(Control::Failed { opening, error });
                None
            }
        }
    }

    /// Writes an entry behind; dropped and counted when too many wait.
    pub fn put(&self, key: CacheKey, entry: Entry) {
        self.offer(Put { key, entry, kind: PutKind::Fill });
    }

    /// Copies an entry found in the old database to the young one, behind.
    pub fn promote(&self, key: CacheKey, entry: Entry) {
        self.offer(Put { key, entry, kind: PutKind::Promotion });
    }

    /// Makes a rule on items last: once this gives `Ok`, no later process gives a covered entry either.
    ///
    /// # Errors
    /// Why the rule holds in this process alone.
    pub async fn forget(&self, keys: Vec<CacheKey>, before_ms: u64) -> Result<(), String> {
        self.rule(|done| Control::Forget { keys, before_ms, done }).await
    }

    /// Makes a rule on everything last, as [`Store::forget`].
    ///
    /// # Errors
    /// Why the rule holds in this process alone.
    pub async fn forget_all(&self, before_ms: u64) -> Result<(), String> {
        self.rule(|done| Control::ForgetAll { before_ms, done }).await
    }

    /// How the tier is.
    pub fn state(&self) -> DiskState {
        self.shared.state.read().clone()
    }

    /// Bytes of every file in the folder, when last counted.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Hands everything put so far to the operating system; `false` when it takes longer than `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (done, flushed) = sync_channel(1);
        self.shared.queue.command(Control::Flush(done)) && wait(flushed, limit).await.is_some()
    }

    /// Writes what waits, closes the databases and lets go of the folder; `false` when it takes longer than `limit`, in
    /// which case it goes on behind.
    pub async fn close(&self, limit: Duration) -> bool {
        self.shared.closed.notify_one();
        let (done, closed) = sync_channel(1);
        self.shared.queue.command(Control::Close(done)) && wait(closed, limit).await.is_some()
    }

    fn offer(&self, put: Put) {
        if !self.shared.queue.offer(put) {
            self.shared.metrics.dropped_writes.inc();
        }
    }

    async fn rule(
        &self,
        control: impl FnOnce(SyncSender<Result<(), String>>) -> Control,
    ) -> Result<(), String> {
        let (done, ended) = sync_channel(1);
        if !self.shared.queue.command(control(done)) {
            return Err("too many rules wait to be written".to_owned());
        }
        let late =
            || Err(format!("the disk cache did not answer within {} s", RULE_LIMIT.as_secs()));
        wait(ended, RULE_LIMIT).await.unwrap_or_else(late)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.closed.notify_one();
        // After a close nobody takes it.
        self.shared.queue.command(Control::Close(sync_channel(1).0));
    }
}

// === impl Shared ===

impl Shared {
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

/// Tries a tier that went off again and again, with longer and longer pauses, until it is on or closed.
async fn reopen(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.closed.notified() => return,
            () = shared.off.notified() => {}
        }
        let mut pause = FIRST_PAUSE;
        loop {
            if timeout(pause, shared.closed.notified()).await.is_ok() {
                return;
            }
            let (done, tried) = sync_channel(1);
            if shared.queue.command(Control::Retry(done))
                && wait(tried, RULE_LIMIT).await == Some(true)
            {
                tracing::info!(folder = %shared.folder.path().display(), "the disk cache is on again");
                break;
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// What a thread answers. The wait blocks a thread of its own, so that it is measured in real time, as the writer's work
/// is, also under a paused clock.
async fn wait<T: Send + 'static>(answer: Receiver<T>, limit: Duration) -> Option<T> {
    spawn_blocking(move || answer.recv_timeout(limit).ok()).await.ok().flatten()
}

fn opening_sentence(config: &StoreConfig) -> String {
    format!("cache folder {}: the disk cache is being opened", config.folder.display())
}
