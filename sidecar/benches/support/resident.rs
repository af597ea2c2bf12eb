//! What memory a process has.

use std::fs;

/// Bytes of it that are in memory now: `VmRSS`.
pub(crate) fn resident(process: u32) -> f64 {
    field(process, "VmRSS:")
}

/// The most that there were at any time: `VmHWM`.
pub(crate) fn peak(process: u32) -> f64 {
    field(process, "VmHWM:")
}

/// Bytes of it that are its own: not pages of the program's file, which the system may drop.
pub(crate) fn anonymous(process: u32) -> f64 {
    field(process, "RssAnon:")
}

fn field(process: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number");
    kilobytes * 1024.0
}
