//! The disk tier as the rest of the cache sees it: a lookup that blocks, writes that do not, rules that are waited for, and
//! a state. Opening again after a failure is its own affair.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    task::{self, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};

use super::{
    control::{Control, RULE_LIMIT, answer},
    error::RuleError,
    pair::{Put, PutKind},
    readers::{READ_LIMIT, Readers},
    reopen::reopen,
    shared::Shared,
    tier::{DiskState, Found, StoreConfig},
    writer::Writer,
};
use crate::{
    cache::{entry::Entry, metrics::CacheMetrics, rules::Rules},
    key::CacheKey,
};

/// Keys that are read together, so that large requests let small ones between.
const KEYS_AT_ONCE: usize = 32;
/// How long opening may keep the process from starting.
const READY_LIMIT: Duration = Duration::from_millis(4500);

/// A model's disk tier.
pub struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) readers: Arc<Readers>,
    tasks: Mutex<Tasks>,
}

/// What works for a store until it is closed.
struct Tasks {
    /// None when it could not be started, or has ended.
    writer: Option<JoinHandle<()>>,
    reopening: task::JoinHandle<()>,
}

// === impl Store ===

impl Store {
    /// Opens the tier; when that fails it is off, says why, and is tried again. Waits at most some seconds.
    pub async fn open(config: StoreConfig, rules: Arc<Rules>, metrics: CacheMetrics) -> Self {
        let shared = Arc::new(Shared::new(config, rules, metrics));
        let writer = start_writer(&shared).await;
        let reopening = tokio::spawn(reopen(shared.clone()));
        let tasks = Mutex::new(Tasks { writer, reopening });
        Store { shared, readers: Arc::new(Readers::new(READ_LIMIT)), tasks }
    }

    /// Whether it answers.
    pub fn is_on(&self) -> bool {
        self.shared.is_on()
    }

    /// The entries under keys, in their order, fresh or not. What takes longer to read than two seconds is not found, and
    /// counted.
    pub async fn get(&self, keys: &[CacheKey]) -> Vec<Option<Found>> {
        let mut found = Vec::with_capacity(keys.len());
        for piece in keys.chunks(KEYS_AT_ONCE) {
            let end = found.len() + piece.len();
            if self.is_on() {
                found.extend(self.read(piece.to_vec()).await);
            }
            found.resize_with(end, || None);
        }
        found
    }

    async fn read(&self, keys: Vec<CacheKey>) -> Vec<Option<Found>> {
        let shared = self.shared.clone();
        let read = move || keys.iter().map(|key| shared.read(key)).collect::<Vec<_>>();
        self.readers.run(read).await.unwrap_or_else(|| {
            self.shared.metrics.late_reads.inc();
            Vec::new()
        })
    }

    /// Keeps every reader busy until what it gives is dropped, as a disk that hangs does.
    #[cfg(test)]
    pub(crate) fn hold_readers_up(&self) -> Vec<std::sync::mpsc::Sender<()>> {
        super::readers::tests::all_held_up(&self.readers)
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
    pub async fn forget(&self, keys: Vec<CacheKey>, before_ms: u64) -> Result<(), RuleError> {
        self.rule(|done| Control::Forget { keys, before_ms, done }).await
    }

    /// Makes a rule on everything last, as [`Store::forget`].
    ///
    /// # Errors
    /// Why the rule holds in this process alone.
    pub async fn forget_all(&self, before_ms: u64) -> Result<(), RuleError> {
        self.rule(|done| Control::ForgetAll { before_ms, done }).await
    }

    /// Makes a raised epoch last, as [`Store::forget`]: a later process refuses a lower one.
    ///
    /// # Errors
    /// Why the epoch holds in this process alone.
    pub async fn raise_epoch(&self, epoch: u64) -> Result<(), RuleError> {
        self.rule(|done| Control::RaiseEpoch { epoch, done }).await
    }

    /// How the tier is.
    pub fn state(&self) -> DiskState {
        self.shared.state()
    }

    /// Bytes of every file in the folder, when last counted.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Hands everything put so far to the operating system; `false` when it takes longer than `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (done, flushed) = oneshot::channel();
        self.shared.queue.command(Control::Flush(done)) && answer(flushed, limit).await.is_some()
    }

    /// Writes what waits, closes the databases, lets go of the folder and ends every thread; `false` when it takes longer
    /// than `limit`, in which case it goes on behind.
    pub async fn close(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let Some(writer) = self.tasks.lock().end() else {
            return self.state() == DiskState::Off;
        };
        let readers = Arc::clone(&self.readers);
        let reading = spawn_blocking(move || readers.close());
        if !matches!(timeout_at(deadline, reading).await, Ok(Ok(()))) {
            tracing::debug!("reads of the disk cache outlive it");
        }
        let (done, closed) = oneshot::channel();
        let left = deadline.saturating_duration_since(Instant::now());
        self.shared.queue.last(Control::Close(done));
        if answer(closed, left).await.is_none() {
            return false;
        }
        // It has nothing more to do.
        let ended = timeout_at(deadline, spawn_blocking(move || writer.join())).await;
        matches!(ended, Ok(Ok(Ok(()))))
    }

    fn offer(&self, put: Put) {
        if !self.shared.queue.offer(put) {
            self.shared.metrics.dropped_writes.inc();
        }
    }

    async fn rule(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<(), RuleError>>) -> Control,
    ) -> Result<(), RuleError> {
        let (done, ended) = oneshot::channel();
        if !self.shared.queue.command(control(done)) {
            return Err(RuleError::TooMany);
        }
        match timeout(RULE_LIMIT, ended).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) => Err(RuleError::Closed),
            Err(_) => Err(RuleError::Late(RULE_LIMIT.as_secs())),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.tasks.lock().end().is_some() {
            // Nobody waits for it to end: there is no way to in a drop.
            self.shared.queue.last(Control::Close(oneshot::channel().0));
        }
    }
}

// === impl Tasks ===

impl Tasks {
    /// Tries the tier no more; gives the writer, once, to be told to end.
    fn end(&mut self) -> Option<JoinHandle<()>> {
        self.reopening.abort();
        self.writer.take()
    }
}

// === free functions ===

/// Starts the writer, and waits until it has opened the tier or given up, but not for long.
async fn start_writer(shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let (ready, opened) = oneshot::channel();
    let writer = Writer::new(shared.clone());
    let thread = thread::Builder::new().name("embark-store".to_owned());
    match thread.spawn(move || writer.run(ready)) {
        Ok(thread) => {
            answer(opened, READY_LIMIT).await;
            Some(thread)
        }
        Err(error) => {
            let message = format!("the disk cache's thread cannot start: {error}");
            shared.set_state(DiskState::Degraded { message });
            None
        }
    }
}
