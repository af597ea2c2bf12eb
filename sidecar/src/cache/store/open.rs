//! Opening a model's cache folder, whatever is in it: at most two databases that can be trusted come of it, or a reason why
//! the tier is off.

use std::{fs::File, io, path::Path, sync::Arc, thread, time::Duration};

use tokio::time::Instant;

use super::{
    Database, StoreError, chain,
    limit::within,
    meta::{FORMAT, Meta, Reading},
    tier::DiskState,
    writer::Writer,
};

/// The time that opening both databases may take.
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// How long a database that was just closed may keep its lock.
const UNLOCK_LIMIT: Duration = Duration::from_secs(1);
/// How often the lock is looked at.
const UNLOCK_POLL: Duration = Duration::from_millis(5);
/// A database over this share of the limit was written under a higher one.
const FIT_PERCENT: u64 = 50;
/// Both together stay under this share.
const FIT_TOTAL_PERCENT: u64 = 92;

// === impl Writer ===

impl Writer {
    /// Brings the tier up.
    pub(super) fn open(&mut self) -> Result<(), StoreError> {
        self.hold()?;
        let numbers = self.shared.folder.databases()?;
        self.shared.set_last_number(numbers.last().copied().unwrap_or(0));
        self.read_meta()?;
        if self.shared.folder.has_marker() {
            self.warn("the last start did not get through opening its databases");
            self.discard_first = true;
        }
        if self.discard_first {
            self.shared.folder.discard_all()?;
            self.discard_first = false;
        }
        self.settle_meta()?;
        self.shared.folder.empty_trash()?;
        self.fit()?;
        self.shared.folder.set_marker()?;
        let opened = self.open_databases();
        // Whatever came of it, it came to an end in this process.
        self.shared.folder.clear_marker()?;
        opened?;
        self.mended = 0;
        self.shared.next_opening();
        self.count()?;
        self.shared.publish(&self.pair);
        self.shared.set_state(DiskState::Healthy);
        Ok(())
    }

    /// Takes the folder's lock, unless it is held: the folder may have been deleted or replaced since.
    pub(super) fn hold(&mut self) -> Result<(), StoreError> {
        let folder = &self.shared.folder;
        if !self.lock.as_ref().is_some_and(|lock| folder.is_locked_by(lock)) {
            self.lock = Some(folder.lock()?);
        }
        Ok(())
    }

    /// Reads the meta file. Without one that can be trusted the rules are lost, and with them every database.
    fn read_meta(&mut self) -> Result<(), StoreError> {
        let why = match Meta::read(&self.shared.folder)? {
            Reading::Meta(meta) => {
                self.meta = meta;
                return Ok(());
            }
            Reading::Missing if self.shared.folder.databases()?.is_empty() => None,
            Reading::Missing => Some("its meta file is missing".to_owned()),
            Reading::Unreadable => Some("its meta file cannot be read".to_owned()),
            Reading::OtherFormat(format) => {
                Some(format!("its format version is {format}, this program's is {FORMAT}"))
            }
        };
        if let Some(why) = why {
            self.warn(&why);
            self.shared.folder.discard_all()?;
        }
        self.meta = Meta::new();
        Ok(())
    }

    /// Joins what the meta file and this process know, and writes it: also the proof that the folder can be written.
    fn settle_meta(&mut self) -> Result<(), StoreError> {
        let rules = &self.shared.rules;
        if !self.meta.clean
            && let Some(before_ms) = self.meta.items_invalidated_before_ms
        {
            // sled may have lost the last tombstones; what they can have covered must not count.
            rules.invalidate_all(before_ms);
        }
        self.meta.epoch = rules.raise_epoch(self.meta.epoch);
        self.meta.invalidated_before_ms.into_iter().for_each(|before| rules.invalidate_all(before));
        self.meta.invalidated_before_ms = rules.all_before_ms();
        let items_until = self.meta.items_invalidated_before_ms;
        items_until.into_iter().for_each(|before| rules.raise_items_until(before));
        self.meta.clean = false;
        self.meta.write(&self.shared.folder)
    }

    /// Deletes what is neither young nor old, and what a lower limit than before has no room for.
    fn fit(&mut self) -> Result<(), StoreError> {
        let folder = self.shared.folder.clone();
        let numbers = folder.databases()?;
        let (spare, kept) = numbers.split_at(numbers.len().saturating_sub(2));
        spare.iter().try_for_each(|number| folder.discard(*number))?;
        for (place, number) in kept.iter().rev().enumerate() {
            if folder.database_bytes(*number)? > self.share(FIT_PERCENT) {
                if place == 0 {
                    self.young_is_lost()?;
                }
                folder.discard(*number)?;
            }
        }
        if folder.bytes()? > self.share(FIT_TOTAL_PERCENT)
            && let [old, _] = kept
        {
            folder.discard(*old)?;
        }
        Ok(())
    }

    /// Opens the databases that are there; one that cannot be opened is deleted.
    fn open_databases(&mut self) -> Result<(), StoreError> {
        let deadline = Instant::now() + OPEN_LIMIT;
        for (place, number) in self.shared.folder.databases()?.into_iter().rev().enumerate() {
            let path = self.shared.folder.database(number);
            let limit = deadline.saturating_duration_since(Instant::now());
            let opened = within(limit, "opening a database", move || {
                wait_until_unlocked(&path);
                Database::open(&path, number)
            });
            match opened.flatten() {
                Ok(database) if place == 0 => self.pair.young = Some(Arc::new(database)),
                Ok(database) => self.pair.old = Some(Arc::new(database)),
                Err(error) if is_of_the_file_system(&error) => return Err(error),
                Err(error) => {
                    self.warn(&chain(&error));
                    if place == 0 {
                        self.young_is_lost()?;
                    } else {
                        self.shared.metrics.discarded_databases.inc();
                    }
                    self.shared.folder.discard(number)?;
                }
            }
        }
        if self.pair.young.is_none() {
            self.begin_young()?;
        }
        Ok(())
    }

    fn warn(&self, why: &str) {
        let folder = self.shared.folder.path().display();
        tracing::warn!("cache folder {folder}: what was cached there is given up: {why}");
    }
}

// === free functions ===

/// Whether the fault lies with the disk and not with what is on it.
fn is_of_the_file_system(error: &StoreError) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error {
        StoreError::Io { source, .. } => matches!(
            source.kind(),
            PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull
        ),
        _ => false,
    }
}

/// A database that this process closed keeps its lock until sled's threads have let go of it.
fn wait_until_unlocked(database: &Path) {
    let deadline = Instant::now() + UNLOCK_LIMIT;
    while let Ok(file) = File::open(database.join("db"))
        && file.try_lock().is_err()
        && Instant::now() < deadline
    {
        thread::park_timeout(UNLOCK_POLL);
    }
}
