//! What every benchmark does: two sides in alternating blocks, the median of the blocks' ratios.

use std::{
    fs,
    io::{Write as _, stdout},
    time::Duration,
};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Blocks of each side.
pub(crate) const BLOCKS: usize = 15;

/// What a target is.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// Prints a result. A target that is missed is told, and fails nothing.
pub(crate) fn ratio(name: &str, value: f64, target: Target) {
    let (operator, bound, holds) = match target {
        Target::AtMost(bound) => ("<=", format!("{bound}"), value <= bound),
        Target::AtLeast(bound) => (">=", format!("{bound}"), value >= bound),
    };
    let missed = if holds { "" } else { "  MISSED" };
    let line = format!("ratio {name} {value:.3} target {operator} {bound}{missed}");
    writeln!(stdout().lock(), "{line}").expect("there is a terminal or a file");
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Keeps this thread, and every thread that it starts, on one core.
pub(crate) fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    // A machine with one core measures all the same.
    let _ = sched_setaffinity(None, &cores);
}

/// The processor time that a process has taken.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // User and system time, in hundredths of a second.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
