//! What can go wrong with the disk tier. Errors print themselves alone; [`chain`](crate::error::chain) prints their causes too, once, where a
//! sentence leaves this module.

use std::io;

/// Why the disk tier could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("failed to {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A database's files are not what was written.
    #[error("database is damaged: {0}")]
    Damaged(String),
    /// It did not end in its time, in seconds.
    #[error("{0} took over {1} s")]
    TimedOut(&'static str, u64),
    /// Another process has the folder.
    #[error("another process holds its lock file")]
    Locked,
}

/// Why a rule holds in this process alone.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// As many as may wait already.
    #[error("too many rules wait to be written")]
    TooMany,
    /// It is still not written; in seconds.
    #[error("the disk cache did not answer within {0} s")]
    Late(u64),
    /// The writer ended before it came to the rule.
    #[error("the disk cache was closed")]
    Closed,
    /// The tier is off, and what it left on disk cannot be deleted.
    #[error("failed to delete what it covers")]
    NotDeleted(#[source] StoreError),
}

// === impl StoreError ===

impl StoreError {
    /// Adds what was tried to what the file system said.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
        |source| StoreError::Io { action: action.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    #[test]
    fn each_cause_is_said_once() {
        let full = StoreError::io("write the meta file")(io::Error::other("no space"));
        assert_eq!(full.to_string(), "failed to write the meta file");
        let error = RuleError::NotDeleted(full);
        let said = "failed to delete what it covers: failed to write the meta file: no space";
        assert_eq!(chain(&error), said);
    }
}
