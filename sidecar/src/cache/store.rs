//! The disk tier, and the one file that names sled.
//!
//! sled's databases are disposable here: every failure of sled, panics included, is an error value, and what was damaged
//! is deleted. What keeps vectors right (checksums, rules, limits, markers) is in the files below, which see a
//! `Database` as a map of bytes.

mod control;
mod error;
mod folder;
mod handle;
mod limit;
mod meta;
mod open;
mod pair;
mod queue;
mod readers;
mod reopen;
mod rotate;
mod shared;
mod tier;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

pub use error::{RuleError, StoreError};
pub use folder::discard_others;
pub use handle::Store;
pub use tier::{DiskState, Found, StoreConfig};

use crate::{error::chain, key::CacheKey};

/// Bytes that sled keeps of one database in memory.
const SLED_CACHE_BYTES: u64 = 16 << 20;

/// One of a model's two databases.
pub(crate) struct Database {
    sled: Option<sled::Db>,
    number: u64,
    path: PathBuf,
    broken: AtomicBool,
}

// === impl Database ===

impl Database {
    /// Opens the folder at `path`, or makes it. May take any time on damaged files.
    pub(crate) fn open(path: &Path, number: u64) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(SLED_CACHE_BYTES)
            // The writer flushes: a thread of sled's own would make files grow between two counts of their bytes, and
            // sled waits for ever at close for such a thread when it has panicked.
            .flush_every_ms(None);
        let sled = guarded("open a database", || config.open())?;
        Ok(Database {
            sled: Some(sled),
            number,
            path: path.to_owned(),
            broken: AtomicBool::new(false),
        })
    }

    /// Its folder's number; young has the higher.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it was found to be damaged; it answers nothing any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// The bytes under a key.
    pub(crate) fn get(&self, key: &CacheKey) -> Result<Option<Bytes>, StoreError> {
        let found = self.run("read a database", |sled| sled.get(key.as_bytes()))?;
        Ok(found.map(|bytes| Bytes::copy_from_slice(&bytes)))
    }

    /// Puts bytes under a key.
    pub(crate) fn insert(&self, key: &CacheKey, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.run("write to a database", |sled| sled.insert(key.as_bytes(), bytes)).map(drop)
    }

    /// Removes what is under a key.
    pub(crate) fn remove(&self, key: &CacheKey) -> Result<(), StoreError> {
        self.run("write to a database", |sled| sled.remove(key.as_bytes())).map(drop)
    }

    /// Hands everything written so far to the operating system.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.run("flush a database", |sled| sled.flush()).map(drop)
    }

    /// Brings everything flushed so far to the disk itself.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let file = File::open(self.path.join("db")).map_err(StoreError::io("sync a database"))?;
        file.sync_all().map_err(StoreError::io("sync a database"))
    }

    fn run<T>(
        &self,
        action: &'static str,
        run: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let Some(sled) = self.sled.as_ref().filter(|_| !self.is_broken()) else {
            return Err(StoreError::Damaged("it was given up".to_owned()));
        };
        let result = guarded(action, || run(sled));
        if matches!(result, Err(StoreError::Damaged(_))) {
            self.broken.store(true, Ordering::SeqCst);
        }
        result
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // sled flushes as it goes, and may panic as it does.
        let sled = self.sled.take();
        if let Err(error) = guarded("close a database", || {
            drop(sled);
            Ok(())
        }) {
            tracing::debug!(error = chain(&error), "database not closed cleanly");
        }
    }
}

// === free functions ===

/// Runs sled, and makes its panics and its corruptions the same error.
fn guarded<T>(
    action: &'static str,
    run: impl FnOnce() -> sled::Result<T>,
) -> Result<T, StoreError> {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) => match source.kind() {
            InvalidData | InvalidInput | NotFound | UnexpectedEof => {
                Err(StoreError::Damaged(format!("{action}: {source}")))
            }
            _ => Err(StoreError::Io { action: action.to_owned(), source }),
        },
        Ok(Err(other)) => Err(StoreError::Damaged(format!("{action}: {other}"))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
            let first: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
            Err(StoreError::Damaged(format!("{action}: {first}")))
        }
    }
}
