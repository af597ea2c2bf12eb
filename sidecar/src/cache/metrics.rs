//! What the cache counts. The caller registers the parts under its own names and labels.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

/// One model's cache in numbers. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    /// Entries that the memory tier gave up for others.
    pub evictions: Counter,
    /// Times that the old database was deleted for a new one.
    pub rotations: Counter,
    /// Records that did not match their checksum.
    pub bad_records: Counter,
    /// Lookups that gave up a disk read because it took too long, or because all readers hung.
    pub late_reads: Counter,
    /// Entries that were not written to disk because the queue was full or the disk tier was off.
    pub dropped_writes: Counter,
    /// Entries written to disk.
    pub writes: Counter,
    /// Failures that switched the disk tier off, or kept it off.
    pub disk_errors: Counter,
    /// Databases that were deleted because they were damaged.
    pub discarded_databases: Counter,
    /// Bytes of every file of the disk tier, when last counted.
    pub disk_bytes: Gauge,
}
