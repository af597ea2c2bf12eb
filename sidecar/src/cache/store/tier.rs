//! The disk tier as those see it who ask it: where it is, how it is, and what it finds.

use std::path::PathBuf;

use crate::cache::entry::Entry;

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
    /// Whether it would go with the old database: `Store::promote` it.
    pub in_old: bool,
}
