//! What the kernel says of this process, under the names that Prometheus has for it.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

/// Ticks of a second, in what the kernel tells: the same on every Linux.
const TICKS: f64 = 100.0;

/// The process, as metrics have it.
#[derive(Debug)]
pub(crate) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let of = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let resident = resident_bytes(&of("/proc/self/status"));
        let started = start_seconds(&of("/proc/self/stat"), &of("/proc/stat"));
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory in bytes", resident),
            ("process_start_time_seconds", "When the process started, in Unix time", started),
        ] {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

// === free functions ===

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn start_seconds(own: &str, all: &str) -> Option<f64> {
    // A name may hold anything, a bracket and spaces too.
    let ticks: f64 = own.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let boot = all.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12.0 * 1024.0));
        let fields = (3..53).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let own = format!("7 (a ) b) {fields}");
        assert_eq!(start_seconds(&own, "cpu 1\nbtime 1000\n"), Some(1000.0 + 0.22));
        assert_eq!((resident_bytes(""), start_seconds("", "")), (None, None));
    }
}
