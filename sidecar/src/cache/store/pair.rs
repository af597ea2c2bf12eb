//! What two databases mean together: young hides old, a tombstone hides what it covers. Order is the caller's: all writes
//! come from one thread.

use std::sync::Arc;

use super::{Database, StoreError};
use crate::{
    cache::{
        entry::{Entry, Record},
        rules::Rules,
    },
    key::CacheKey,
};

/// The databases in use. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Pair {
    pub(super) young: Option<Arc<Database>>,
    pub(super) old: Option<Arc<Database>>,
}

/// What is under a key.
#[derive(Debug)]
pub(super) enum Lookup {
    Missing,
    /// A record that is not the key's.
    Bad,
    Found {
        record: Record,
        in_old: bool,
    },
}

/// An entry on its way to disk.
pub(super) struct Put {
    pub(super) key: CacheKey,
    pub(super) entry: Entry,
    pub(super) kind: PutKind,
}

/// Where an entry on its way to disk comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PutKind {
    /// It was computed.
    Fill,
    /// It was found in old; young may hold a newer one by now.
    Promotion,
}

/// What decides whether a put is written.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) rules: Arc<Rules>,
    pub(super) dimensions: usize,
}

// === impl Pair ===

impl Pair {
    /// What is under a key: young's record, else old's.
    pub(super) fn find(&self, key: &CacheKey, dimensions: usize) -> Result<Lookup, StoreError> {
        for (database, in_old) in [(&self.young, false), (&self.old, true)] {
            let Some(database) = database else { continue };
            if let Some(bytes) = database.get(key)? {
                return Ok(match Record::decode(key, bytes, dimensions) {
                    Ok(record) => Lookup::Found { record, in_old },
                    Err(error) => {
                        tracing::debug!(%error, "bad record");
                        Lookup::Bad
                    }
                });
            }
        }
        Ok(Lookup::Missing)
    }

    /// Writes an entry to young, unless a rule covers it. Gives the bytes written.
    pub(super) fn put(&self, put: &Put, context: &Context) -> Result<u64, StoreError> {
        let Some(young) = &self.young else { return Ok(0) };
        let (key, created_ms) = (&put.key, put.entry.created_ms);
        let covers = |before: Option<u64>| before.is_some_and(|before| before >= created_ms);
        if covers(context.rules.standing(key).invalidated_before_ms) {
            return Ok(0);
        }
        if put.kind == PutKind::Promotion && young.get(key)?.is_some() {
            return Ok(0);
        }
        // The one read before a write, and only for an entry that some tombstone might cover.
        if covers(context.rules.items_until_ms()) {
            match self.tombstone(key, context.dimensions)? {
                Some(before) if covers(before) => return Ok(0),
                Some(_) => {}
                None => return Ok(0),
            }
        }
        write(young, key, &Record::Entry(put.entry.clone()))
    }

    /// Writes a tombstone under each key, and brings them to the disk itself. Gives the bytes written.
    pub(super) fn bury(
        &self,
        keys: &[CacheKey],
        before_ms: u64,
        context: &Context,
    ) -> Result<u64, StoreError> {
        let Some(young) = &self.young else { return Ok(0) };
        let mut written = 0;
        for key in keys {
            let earlier = self.tombstone(key, context.dimensions)?.flatten();
            let before_ms = earlier.unwrap_or(0).max(before_ms);
            written += write(young, key, &Record::Tombstone { before_ms })?;
        }
        young.flush()?;
        young.sync()?;
        Ok(written)
    }

    /// Removes whatever is under a key.
    pub(super) fn remove(&self, key: &CacheKey) -> Result<(), StoreError> {
        self.databases().try_for_each(|database| database.remove(key))
    }

    /// Both databases.
    pub(super) fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.young.iter().chain(&self.old)
    }

    /// The highest time of a tombstone under the key in either database, `Some(None)` when there is none; `None` when a
    /// record cannot be read, so that nobody knows.
    fn tombstone(
        &self,
        key: &CacheKey,
        dimensions: usize,
    ) -> Result<Option<Option<u64>>, StoreError> {
        let mut highest = None;
        for database in self.databases() {
            match database.get(key)?.map(|bytes| Record::decode(key, bytes, dimensions)) {
                Some(Ok(Record::Tombstone { before_ms })) => highest = highest.max(Some(before_ms)),
                Some(Ok(Record::Entry(_))) | None => {}
                Some(Err(_)) => return Ok(None),
            }
        }
        Ok(Some(highest))
    }
}

// === free functions ===

fn write(database: &Database, key: &CacheKey, record: &Record) -> Result<u64, StoreError> {
    let bytes = record.encode(key);
    let length = bytes.len() as u64 + 32;
    database.insert(key, bytes)?;
    Ok(length)
}
