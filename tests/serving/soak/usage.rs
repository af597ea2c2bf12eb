//! What a process uses of the machine.

use std::{collections::BTreeMap, fmt, fs, time::Duration};

use embark_tests::{Sidecar, sidecar::pass};
use tokio::{sync::watch, task::JoinHandle};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What a process uses at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Bytes that are resident.
    pub(super) memory: u64,
    pub(super) threads: usize,
    pub(super) descriptors: usize,
}

/// Looks at a process now and then.
pub(super) struct Meter {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Usage>>,
}

/// What was seen, in the order of time.
pub(super) struct Seen(Vec<Usage>);

// === impl Usage ===

impl Usage {
    pub(super) fn of(sidecar: &Sidecar) -> Self {
        Self::of_process(sidecar.id()).expect("it runs")
    }

    fn of_process(id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        let count = |kind: &str| Some(fs::read_dir(format!("/proc/{id}/{kind}")).ok()?.count());
        Some(Usage { memory: kilobytes << 10, threads: count("task")?, descriptors: count("fd")? })
    }

    fn most(all: &[Usage]) -> Self {
        all.iter().fold(Usage::default(), |most, one| Usage {
            memory: most.memory.max(one.memory),
            threads: most.threads.max(one.threads),
            descriptors: most.descriptors.max(one.descriptors),
        })
    }
}

// === impl Meter ===

impl Meter {
    pub(super) fn start(process: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !*stopped.borrow() {
                seen.extend(Usage::of_process(process));
                pass(EVERY).await;
            }
            seen
        });
        Meter { stop, task }
    }

    pub(super) async fn stop(self) -> Seen {
        self.stop.send_replace(true);
        Seen(self.task.await.unwrap())
    }
}

// === impl Seen ===

impl Seen {
    /// The most of the first part, in which everything fills up that may, and of the last.
    fn ends(&self) -> [Usage; 2] {
        let (first, last) = (self.0.len() * 2 / 5, self.0.len() * 7 / 10);
        [Usage::most(&self.0[..first]), Usage::most(&self.0[last..])]
    }

    /// Memory grew by no more than this, and threads and descriptors by no more than disks and callers come and go.
    pub(super) fn assert_flat(&self, growth: u64) {
        let [first, last] = self.ends();
        assert!(last.memory <= first.memory + growth, "memory grew: {self}");
        assert!(last.threads <= first.threads + 16, "threads grew: {self}");
        assert!(last.descriptors <= first.descriptors + 32, "descriptors grew: {self}");
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last] = self.ends();
        let tenths = self.0.chunks(self.0.len().div_ceil(10).max(1));
        let memory: Vec<u64> = tenths.map(|part| Usage::most(part).memory >> 20).collect();
        write!(f, "at most {first:?} in the first part, {last:?} in the last; MiB {memory:?}")
    }
}

// === free functions ===

/// A process's threads by their names.
pub(super) fn threads(sidecar: &Sidecar) -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", sidecar.id())).unwrap().flatten() {
        // One may end meanwhile.
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        *threads.entry(name.trim().to_owned()).or_default() += 1;
    }
    threads
}
