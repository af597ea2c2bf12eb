//! How often the process was kept from computing by a CPU limit, as its cgroup counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Where the CPU controller of version 1 may be mounted below that.
const CONTROLLERS: [&str; 2] = ["cpu,cpuacct", "cpu"];

/// Periods in which the process ran into its CPU limit, since its cgroup was made; `None`: nothing counts them.
pub fn periods() -> Option<u64> {
    of_group(Path::new(MOUNT), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// What the nearest group says, from the process's own up to the root: in a container, the path may be the host's, and
/// the container's own group is the root of what is mounted.
fn of_group(mount: &Path, groups: &str) -> Option<u64> {
    let mut roots: Vec<(PathBuf, &str)> = Vec::new();
    for line in groups.lines() {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        if controllers.is_empty() {
            roots.push((mount.to_owned(), path));
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            roots.extend(CONTROLLERS.map(|folder| (mount.join(folder), path)));
        }
    }
    roots.into_iter().find_map(|(root, path)| {
        let own = root.join(path.trim_start_matches('/'));
        let mut folders = own.ancestors().take_while(|folder| folder.starts_with(&root));
        folders.find_map(|folder| counted(&fs::read_to_string(folder.join("cpu.stat")).ok()?))
    })
}

/// The count in a group's `cpu.stat`.
fn counted(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "usage_usec 5\nnr_periods 40\nnr_throttled 7\nthrottled_usec 900\n";

    #[test]
    fn the_own_group_of_version_2_counts_and_else_the_nearest_above() {
        let mount = tempfile::tempdir().unwrap();
        let pod = mount.path().join("kubepods/pod1");
        fs::create_dir_all(pod.join("container")).unwrap();
        let periods = || of_group(mount.path(), "0::/kubepods/pod1/container\n");
        assert_eq!(periods(), None);
        // What a group without the controller says.
        fs::write(pod.join("container/cpu.stat"), "usage_usec 5\n").unwrap();
        assert_eq!(periods(), None);
        fs::write(pod.join("cpu.stat"), STAT).unwrap();
        assert_eq!(periods(), Some(7));
        fs::write(pod.join("container/cpu.stat"), STAT.replace('7', "8")).unwrap();
        assert_eq!(periods(), Some(8));
    }

    #[test]
    fn a_group_of_version_1_counts_wherever_its_controller_is_mounted() {
        for (folder, controllers) in [("cpu,cpuacct", "cpu,cpuacct"), ("cpu", "cpuacct,cpu")] {
            let mount = tempfile::tempdir().unwrap();
            let root = mount.path().join(folder);
            fs::create_dir_all(&root).unwrap();
            let groups = format!("5:memory:/a\n4:{controllers}:/of/the/host\n0::/\n");
            assert_eq!(of_group(mount.path(), &groups), None);
            // A container sees its own group as the root.
            fs::write(root.join("cpu.stat"), "nr_periods 9\nnr_throttled 3\n").unwrap();
            assert_eq!(of_group(mount.path(), &groups), Some(3));
        }
    }

    #[test]
    fn another_controller_whose_name_begins_alike_does_not_count() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir_all(mount.path().join("cpu")).unwrap();
        fs::write(mount.path().join("cpu/cpu.stat"), STAT).unwrap();
        assert_eq!(of_group(mount.path(), "4:cpuset:/\n"), None);
        assert_eq!(of_group(mount.path(), "no group at all\n"), None);
    }
}
