//! What threads of a process cost.

use std::{fs, path::Path};

/// The processor seconds that a process's threads have taken whose names begin with one of these.
pub(crate) fn cpu(process: u32, names: &[&str]) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.map(|task| of_task(&task.path(), names).unwrap_or(0.0)).sum()
}

/// `None`: it has ended, or has another name.
fn of_task(task: &Path, names: &[&str]) -> Option<f64> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    if !names.iter().any(|own| name.starts_with(own)) {
        return None;
    }
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let mut times = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    // User and system time, in hundredths of a second.
    Some((ticks()? + ticks()?) / 100.0)
}
