//! How much memory the process may use: what it was told at its start, the limit of its cgroup, or the machine's memory.

mod account;

use std::{fs, path::Path, sync::OnceLock};

pub use account::{Account, Needs, Taken};

/// What is assumed where nothing can be read, in bytes.
const ASSUMED: u64 = 512 * 1024 * 1024;
const KIB: u64 = 1024;

/// What who started the process said; once.
static SAID: OnceLock<u64> = OnceLock::new();

/// Has the process use no more than so many bytes, whatever the system would allow. To be said before anything is sized by
/// it; what is said later is not heard.
pub fn limit_to(bytes: u64) {
    let _ = SAID.set(bytes);
}

/// Bytes that the process may use.
pub fn limit() -> u64 {
    SAID.get().copied().unwrap_or_else(of_system)
}

fn of_system() -> u64 {
    let root = Path::new("/sys/fs/cgroup");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let own = of_group(root, &groups);
    own.into_iter().chain(machine).min().unwrap_or(ASSUMED)
}

/// The least limit on the way from the process's cgroup (version 2) up to the root, for a group has those above it.
fn of_group(root: &Path, groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = root.join(path.trim_start_matches('/'));
    let limits =
        folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(|folder| {
            // "max" is no number and no limit.
            fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()
        });
    limits.min()
}

/// The machine's memory in `/proc/meminfo`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_above_a_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("kubepods/pod1");
        fs::create_dir_all(pod.join("container")).unwrap();
        let limit = || of_group(root.path(), "0::/kubepods/pod1/container\n");
        assert_eq!(limit(), None);
        fs::write(pod.join("container/memory.max"), "max\n").unwrap();
        assert_eq!(limit(), None);
        fs::write(pod.join("memory.max"), "1000\n").unwrap();
        assert_eq!(limit(), Some(1000));
        fs::write(pod.join("container/memory.max"), "500\n").unwrap();
        assert_eq!(limit(), Some(500));
        assert_eq!(of_group(root.path(), "12:memory:/old\n"), None);
    }

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(total("MemTotal:       24683520 kB\nMemFree: 1 kB\n"), Some(24_683_520 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(limit() > 1 << 20);
    }
}
