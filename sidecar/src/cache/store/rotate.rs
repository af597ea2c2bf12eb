//! Keeping the folder under its limit: when young is full, old is deleted and young becomes old. And replacing a database
//! that turned out to be damaged.

use std::{sync::Arc, time::Duration};

use super::{Database, StoreError, chain, limit::within, writer::Writer};

/// Young is full at this share of the limit.
const YOUNG_PERCENT: u64 = 45;
/// Old goes early when all files reach this share.
const TOTAL_PERCENT: u64 = 92;
/// Without anything left to delete, the tier is off at this share.
const MOST_PERCENT: u64 = 96;
/// The time that opening a new, empty database may take.
const NEW_LIMIT: Duration = Duration::from_secs(3);
/// The time that closing a database may take before its files are deleted all the same.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Databases replaced in one opening before the tier takes a pause.
const MOST_MENDED: u32 = 3;

// === impl Writer ===

impl Writer {
    /// Counts bytes, and rotates when young is full.
    pub(super) fn count(&mut self) -> Result<(), StoreError> {
        self.uncounted = 0;
        self.check_presence()?;
        let mut total = self.measure()?;
        let young = self.pair.young.as_ref().map_or(0, |young| young.number());
        let full = self.shared.folder.database_bytes(young)? >= self.share(YOUNG_PERCENT);
        if full || total >= self.share(TOTAL_PERCENT) {
            self.rotate()?;
            total = self.measure()?;
        }
        if total >= self.share(MOST_PERCENT) {
            let source = std::io::Error::other("deleted files still take it");
            return Err(StoreError::Io { action: "make room".to_owned(), source });
        }
        Ok(())
    }

    /// Somebody may delete the folder of a store that is open. Its files then live on without names: they take space that
    /// no count sees, and nothing of them is there at the next start.
    fn check_presence(&mut self) -> Result<(), StoreError> {
        let folder = &self.shared.folder;
        let held = self.lock.as_ref().is_some_and(|lock| folder.is_locked_by(lock));
        let mut young = self.pair.young.iter();
        if held && young.all(|young| folder.database(young.number()).is_dir()) {
            return Ok(());
        }
        // What is left may lack tombstones that were deleted.
        self.discard_first = true;
        let source = std::io::Error::other("they were deleted from outside");
        Err(StoreError::Io { action: "look for its files".to_owned(), source })
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        self.shared.metrics.rotations.inc();
        if let Some(old) = self.pair.old.take() {
            self.shared.publish(&self.pair);
            self.dispose(old)?;
        }
        self.pair.old = self.pair.young.take();
        self.begin_young()
    }

    /// Replaces the databases that are damaged.
    pub(super) fn mend(&mut self, error: &StoreError) -> Result<(), StoreError> {
        tracing::warn!(
            folder = %self.shared.folder.path().display(),
            error = chain(error),
            "a database of the disk cache is given up and begun anew"
        );
        self.mended += 1;
        let broken = |database: &Option<Arc<Database>>| {
            database.as_ref().is_some_and(|database| database.is_broken())
        };
        let (young, old) = (broken(&self.pair.young), broken(&self.pair.old));
        if self.mended > MOST_MENDED || !(young || old) {
            self.discard_first = true;
            return Err(StoreError::Damaged("again and again".to_owned()));
        }
        if old && let Some(old) = self.pair.old.take() {
            self.shared.publish(&self.pair);
            self.shared.metrics.discarded_databases.inc();
            self.dispose(old)?;
        }
        if young && let Some(young) = self.pair.young.take() {
            self.shared.publish(&self.pair);
            self.young_is_lost()?;
            self.dispose(young)?;
            self.begin_young()?;
        }
        Ok(())
    }

    /// Young's tombstones are lost with it, so all that they can have covered in old must not count either.
    pub(super) fn young_is_lost(&mut self) -> Result<(), StoreError> {
        self.shared.metrics.discarded_databases.inc();
        if let Some(before_ms) = self.meta.items_invalidated_before_ms {
            self.shared.rules.invalidate_all(before_ms);
            self.meta.invalidated_before_ms = self.shared.rules.all_before_ms();
            self.meta.write(&self.shared.folder)?;
        }
        Ok(())
    }

    /// Opens a new, empty young.
    pub(super) fn begin_young(&mut self) -> Result<(), StoreError> {
        // Never a number that was used before: a thread that hangs in sled may still know its folder.
        let number = self.shared.last_number() + 1;
        self.shared.set_last_number(number);
        let path = self.shared.folder.database(number);
        let open = move || Database::open(&path, number);
        let database = within(NEW_LIMIT, "opening a new database", open).flatten();
        if matches!(database, Err(StoreError::TimedOut(..))) {
            self.discard_first = true;
        }
        self.pair.young = Some(Arc::new(database?));
        self.shared.publish(&self.pair);
        Ok(())
    }

    /// Closes a database and deletes its folder. A reader that is still at it holds its files open, not its names.
    fn dispose(&self, database: Arc<Database>) -> Result<(), StoreError> {
        let number = database.number();
        if let Err(error) = within(CLOSE_LIMIT, "a close", move || drop(database)) {
            tracing::debug!(error = chain(&error), "deleted while it closes");
        }
        self.shared.folder.discard(number)
    }

    fn measure(&self) -> Result<u64, StoreError> {
        let bytes = self.shared.folder.bytes()?;
        self.shared.set_bytes(bytes);
        Ok(bytes)
    }

    pub(super) fn share(&self, percent: u64) -> u64 {
        self.shared.config.disk_bytes / 100 * percent
    }
}
