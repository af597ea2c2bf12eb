//! The writer: the one thread that writes to a model's cache folder, and that owns its opening, its rotation and its end.
//! It never waits longer than a limit for sled.

use std::{fs::File, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    RuleError, StoreError, chain,
    control::Control,
    limit::within,
    meta::Meta,
    pair::{Context, Pair, Put},
    shared::Shared,
    tier::DiskState,
};
use crate::key::CacheKey;

/// How long written entries may wait until they are handed to the operating system.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// The time that writing one batch may take, or one flush.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// The time that closing the databases may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Entries written in one go, at most.
const MOST_AT_ONCE: u64 = 256;

/// The writer's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) lock: Option<File>,
    /// What the meta file says, once it was read.
    pub(super) meta: Meta,
    pub(super) pair: Pair,
    /// Bytes written since they were last counted.
    pub(super) uncounted: u64,
    /// The databases must be deleted before any is opened.
    pub(super) discard_first: bool,
    /// Databases replaced since the tier was opened.
    pub(super) mended: u32,
    flushed: Instant,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Writer {
            shared,
            lock: None,
            meta: Meta::new(),
            pair: Pair::default(),
            uncounted: 0,
            discard_first: false,
            mended: 0,
            flushed: Instant::now(),
        }
    }

    /// Opens, says so, and works until it is told to end.
    pub(super) fn run(mut self, ready: oneshot::Sender<bool>) {
        // Nobody may wait any more.
        let _ = ready.send(self.retry());
        let record = self.shared.config.dimensions as u64 * 4 + 1;
        let most = (self.shared.count_every() / record).clamp(1, MOST_AT_ONCE) as usize;
        loop {
            let wait = FLUSH_EVERY.saturating_sub(self.flushed.elapsed());
            let (writes, control) = self.shared.queue.next(most, wait);
            if !writes.is_empty() {
                self.write(writes);
            }
            if let Some(Control::Close(done)) = control {
                self.close();
                let _ = done.send(());
                return;
            }
            if let Some(control) = control {
                self.control(control);
            }
            let due = self.flushed.elapsed() >= FLUSH_EVERY;
            if due || self.uncounted >= self.shared.count_every() {
                self.tick();
            }
        }
    }

    fn write(&mut self, puts: Vec<Put>) {
        let metrics = &self.shared.metrics;
        if self.pair.young.is_none() {
            metrics.dropped_writes.inc_by(puts.len() as u64);
            return;
        }
        let (pair, context, writes) = (self.pair.clone(), self.context(), metrics.writes.clone());
        let result = within(WRITE_LIMIT, "a write", move || {
            let mut written = 0;
            for put in &puts {
                let bytes = pair.put(put, &context)?;
                written += bytes;
                writes.inc_by(u64::from(bytes > 0));
            }
            Ok(written)
        });
        self.wrote(result);
    }

    fn control(&mut self, control: Control) {
        // Nobody may wait any more for what is sent here.
        match control {
            Control::Forget { keys, before_ms, done } => {
                let _ = done.send(self.forget(keys, before_ms));
            }
            Control::ForgetAll { before_ms, done } => {
                let _ = done.send(self.forget_all(before_ms));
            }
            Control::RaiseEpoch { epoch, done } => {
                let _ = done.send(self.raise_epoch(epoch));
            }
            Control::Remove(key) => {
                let pair = self.pair.clone();
                self.wrote(within(WRITE_LIMIT, "a write", move || pair.remove(&key).map(|()| 64)));
            }
            Control::Failed { opening, error } => {
                // Many readers report one fault; it may be mended by now.
                let damaged = matches!(error, StoreError::Damaged(_));
                let mended = damaged && !self.pair.databases().any(|database| database.is_broken());
                if opening == self.shared.opening() && self.pair.young.is_some() && !mended {
                    self.failed(error);
                }
            }
            Control::Flush(done) => {
                self.tick();
                let _ = done.send(());
            }
            Control::Retry(done) => {
                let _ = done.send(self.retry());
            }
            Control::Close(_) => {}
        }
    }

    /// Opens when the tier is off; says whether it is on.
    fn retry(&mut self) -> bool {
        if self.pair.young.is_none()
            && let Err(error) = self.open()
        {
            self.go_off(&error);
        }
        self.pair.young.is_some()
    }

    fn forget(&mut self, keys: Vec<CacheKey>, before_ms: u64) -> Result<(), RuleError> {
        if self.pair.young.is_none() {
            return self.discard_for_a_rule();
        }
        let result = self.raise_items_until(before_ms).and_then(|()| {
            let (pair, context) = (self.pair.clone(), self.context());
            within(WRITE_LIMIT, "a write", move || pair.bury(&keys, before_ms, &context)).flatten()
        });
        match result {
            Ok(written) => {
                self.uncounted += written;
                Ok(())
            }
            Err(error) => {
                self.go_off(&error);
                self.discard_for_a_rule()
            }
        }
    }

    fn forget_all(&mut self, before_ms: u64) -> Result<(), RuleError> {
        if self.pair.young.is_none() {
            return self.discard_for_a_rule();
        }
        self.meta.invalidated_before_ms = self.meta.invalidated_before_ms.max(Some(before_ms));
        self.write_rule()
    }

    fn raise_epoch(&mut self, epoch: u64) -> Result<(), RuleError> {
        if self.pair.young.is_none() {
            return self.discard_for_a_rule();
        }
        self.meta.epoch = self.meta.epoch.max(epoch);
        self.write_rule()
    }

    /// Brings a rule of the meta file to the disk.
    fn write_rule(&mut self) -> Result<(), RuleError> {
        self.meta.write(&self.shared.folder).or_else(|error| {
            self.go_off(&error);
            self.discard_for_a_rule()
        })
    }

    /// The tier is off and cannot hold a rule: what it covers must go.
    fn discard_for_a_rule(&mut self) -> Result<(), RuleError> {
        self.discard_first = true;
        self.discard_all().map_err(RuleError::NotDeleted)
    }

    fn discard_all(&mut self) -> Result<(), StoreError> {
        if self.shared.folder.databases()?.is_empty() {
            return Ok(());
        }
        // Whoever else holds the folder, its databases are not ours to delete.
        self.hold()?;
        self.shared.folder.discard_all()
    }

    fn raise_items_until(&mut self, before_ms: u64) -> Result<(), StoreError> {
        if self.meta.items_invalidated_before_ms < Some(before_ms) {
            self.meta.items_invalidated_before_ms = Some(before_ms);
            self.meta.write(&self.shared.folder)?;
        }
        Ok(())
    }

    fn wrote(&mut self, result: Result<Result<u64, StoreError>, StoreError>) {
        match result.flatten() {
            Ok(written) => self.uncounted += written,
            Err(error) => self.failed(error),
        }
    }

    /// Hands what was written to the operating system, counts bytes, and rotates when it is time.
    fn tick(&mut self) {
        self.flushed = Instant::now();
        if self.uncounted == 0 {
            return;
        }
        let Some(young) = self.pair.young.clone() else { return };
        let flushed = within(WRITE_LIMIT, "a flush", move || young.flush()).flatten();
        if let Err(error) = flushed.and_then(|()| self.count()) {
            self.failed(error);
        }
    }

    /// Replaces what is damaged; anything else switches the tier off.
    fn failed(&mut self, error: StoreError) {
        let error = match error {
            StoreError::Damaged(_) => match self.mend(&error) {
                Ok(()) => return,
                Err(error) => error,
            },
            other => other,
        };
        self.go_off(&error);
    }

    /// Switches the tier off; the retry task is woken.
    pub(super) fn go_off(&mut self, error: &StoreError) {
        self.shared.publish(&Pair::default());
        let pair = std::mem::take(&mut self.pair);
        self.shared.metrics.disk_errors.inc();
        if within(CLOSE_LIMIT, "a close", move || drop(pair)).is_err() {
            // A thread hangs in it: its files must not be opened beside it.
            self.discard_first = true;
        }
        if matches!(error, StoreError::TimedOut(..)) {
            self.discard_first = true;
        }
        let message = format!(
            "cache folder {}: the disk cache is off and vectors are kept in memory alone: {}",
            self.shared.folder.path().display(),
            chain(error)
        );
        tracing::warn!("{message}");
        self.shared.set_state(DiskState::Degraded { message });
        self.shared.off.notify_one();
    }

    fn close(&mut self) {
        self.tick();
        self.shared.publish(&Pair::default());
        let pair = std::mem::take(&mut self.pair);
        if pair.young.is_some() && within(CLOSE_LIMIT, "a close", move || drop(pair)).is_ok() {
            self.meta.clean = true;
            if let Err(error) = self.meta.write(&self.shared.folder) {
                tracing::warn!(error = chain(&error), "cache folder not closed in order");
            }
        }
        self.lock = None;
        self.shared.set_state(DiskState::Off);
    }

    fn context(&self) -> Context {
        Context { rules: self.shared.rules.clone(), dimensions: self.shared.config.dimensions }
    }
}
