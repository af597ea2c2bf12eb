//! What a model's cache counts, under the names that Prometheus sees.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::ModelLabel;
use crate::cache::{CacheStatus, metrics::CacheMetrics, store::DiskState};

#[derive(Clone, Debug, Default)]
pub(super) struct CacheFamilies {
    entries: Family<ModelLabel, Gauge>,
    memory_bytes: Family<ModelLabel, Gauge>,
    disk_bytes: Family<ModelLabel, Gauge>,
    healthy: Family<ModelLabel, Gauge>,
    evictions: Family<ModelLabel, Counter>,
    rotations: Family<ModelLabel, Counter>,
    bad_records: Family<ModelLabel, Counter>,
    late_reads: Family<ModelLabel, Counter>,
    writes: Family<ModelLabel, Counter>,
    dropped_writes: Family<ModelLabel, Counter>,
    disk_errors: Family<ModelLabel, Counter>,
    discarded_databases: Family<ModelLabel, Counter>,
}

/// Gauges that are set when somebody asks.
#[derive(Clone, Debug)]
pub(super) struct CacheGauges {
    entries: Gauge,
    memory_bytes: Gauge,
    healthy: Gauge,
}

// === impl CacheFamilies ===

impl CacheFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = CacheFamilies::default();
        let f = &families;
        let cache = registry.sub_registry_with_prefix("cache");
        cache.register("entries", "Entries in memory", f.entries.clone());
        cache.register("memory_bytes", "Bytes of the entries in memory", f.memory_bytes.clone());
        let help = "Bytes of every file of the disk tier";
        cache.register("disk_bytes", help, f.disk_bytes.clone());
        cache.register("healthy", "0 while the disk tier is off by a fault", f.healthy.clone());
        let help = "Entries that left memory for others";
        cache.register("evictions", help, f.evictions.clone());
        let help = "Times that the older database was deleted for a new one";
        cache.register("rotations", help, f.rotations.clone());
        let help = "Records on disk that did not match their checksum";
        cache.register("bad_records", help, f.bad_records.clone());
        let help = "Lookups on disk that took too long and became misses";
        cache.register("late_reads", help, f.late_reads.clone());
        cache.register("writes", "Entries written to disk", f.writes.clone());
        let help = "Entries not written to disk because too many waited or the disk tier was off";
        cache.register("dropped_writes", help, f.dropped_writes.clone());
        let help = "Faults that switched the disk tier off";
        cache.register("disk_errors", help, f.disk_errors.clone());
        let help = "Databases deleted because they were damaged";
        cache.register("discarded_databases", help, f.discarded_databases.clone());
        families
    }

    pub(super) fn handles(&self, label: &ModelLabel) -> CacheMetrics {
        CacheMetrics {
            evictions: self.evictions.get_or_create_owned(label),
            rotations: self.rotations.get_or_create_owned(label),
            bad_records: self.bad_records.get_or_create_owned(label),
            late_reads: self.late_reads.get_or_create_owned(label),
            dropped_writes: self.dropped_writes.get_or_create_owned(label),
            writes: self.writes.get_or_create_owned(label),
            disk_errors: self.disk_errors.get_or_create_owned(label),
            discarded_databases: self.discarded_databases.get_or_create_owned(label),
            disk_bytes: self.disk_bytes.get_or_create_owned(label),
        }
    }

    pub(super) fn gauges(&self, label: &ModelLabel) -> CacheGauges {
        CacheGauges {
            entries: self.entries.get_or_create_owned(label),
            memory_bytes: self.memory_bytes.get_or_create_owned(label),
            healthy: self.healthy.get_or_create_owned(label),
        }
    }
}

// === impl CacheGauges ===

impl CacheGauges {
    pub(super) fn set(&self, status: &CacheStatus) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.entries.set(gauge(status.memory_entries));
        self.memory_bytes.set(gauge(status.memory_bytes));
        let healthy = !matches!(status.disk, DiskState::Degraded { .. });
        self.healthy.set(healthy.into());
    }
}
