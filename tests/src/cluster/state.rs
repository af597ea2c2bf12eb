//! The folder that holds all a cluster has: certificates, data, logs, the ids of its processes. Its lock is held for as
//! long as the cluster's guard runs, so that a folder whose lock is free is what a crash left, and is swept.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use super::{Level, requests};

/// How long a killed process may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// A cluster's state folder.
#[derive(Clone, Debug)]
pub(super) struct State(PathBuf);

// === impl State ===

impl State {
    /// Sweeps what crashed clusters left, then makes a folder. It is this cluster's while the file is open.
    pub(super) async fn create(level: Level) -> anyhow::Result<(State, File)> {
        let root = root();
        fs::create_dir_all(&root).with_context(|| format!("{} cannot be made", root.display()))?;
        // Held while folders come and go: one that is new has no lock yet.
        let all = File::create(root.join("lock"))?;
        all.lock()?;
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            if path.is_dir() && is_abandoned(&path) {
                State(path).sweep().await?;
            }
        }
        let state = State(root.join(format!("{}-{}", level.name(), std::process::id())));
        for folder in ["logs", "ids"] {
            fs::create_dir_all(state.path(folder))?;
        }
        requests::prepare(&state)?;
        let lock = File::create(state.path("lock"))?;
        lock.lock()?;
        Ok((state, lock))
    }

    /// The state folder of a cluster that runs.
    pub(super) fn at(path: &Path) -> State {
        State(path.to_owned())
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// A file or folder in it.
    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// What names this cluster where all of a machine share names.
    pub(super) fn unique_name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("embark-{name}")
    }

    /// Notes a process, so that it can be ended without its parent.
    pub(super) fn note(&self, name: &str, id: u32) -> anyhow::Result<()> {
        let started = started(id).with_context(|| format!("{name} ended at once"))?;
        Ok(fs::write(self.path("ids").join(name), format!("{id} {started}"))?)
    }

    /// Ends what is left of the cluster, and deletes the folder.
    pub(super) async fn sweep(&self) -> anyhow::Result<()> {
        for id in self.processes() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).output();
        }
        let processes = async || self.processes().is_empty();
        anyhow::ensure!(holds(processes).await, "processes of {} do not end", self.0.display());
        for cgroup in self.cgroups() {
            let gone = async || remove_cgroup(&cgroup).is_ok();
            anyhow::ensure!(holds(gone).await, "{} is not empty", cgroup.display());
        }
        requests::keep(self)?;
        fs::remove_dir_all(&self.0).with_context(|| format!("{} is left", self.0.display()))
    }

    /// The control groups that a node keeps its pods in, one for each controller where they are apart (version 1).
    pub(super) fn cgroups(&self) -> Vec<PathBuf> {
        let mut groups = vec![Path::new(CGROUPS).join(self.unique_name())];
        for entry in fs::read_dir(CGROUPS).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                groups.push(entry.path().join(self.unique_name()));
            }
        }
        groups.retain(|group| group.is_dir());
        groups
    }

    /// The noted processes that still run: an id alone may be a stranger's by now.
    fn processes(&self) -> Vec<u32> {
        let mut processes = Vec::new();
        for entry in fs::read_dir(self.path("ids")).into_iter().flatten().flatten() {
            let note = fs::read_to_string(entry.path()).unwrap_or_default();
            if let Some((id, noted)) = note.split_once(' ')
                && let Ok(id) = id.parse()
                && started(id).as_deref() == Some(noted)
            {
                processes.push(id);
            }
        }
        processes
    }
}

/// Where the state folders are: outside of the clone.
pub(super) fn root() -> PathBuf {
    cache().join("clusters")
}

/// Where logs of what failed are kept.
pub(super) fn kept() -> PathBuf {
    cache().join("logs/clusters")
}

fn cache() -> PathBuf {
    let cache = std::env::var_os("EMBARK_TEST_CACHE").map(PathBuf::from);
    cache.unwrap_or_else(|| std::env::temp_dir().join("embark-tests"))
}

pub(super) fn is_abandoned(folder: &Path) -> bool {
    File::open(folder.join("lock")).map_or(true, |lock| lock.try_lock().is_ok())
}

/// When a process started, in ticks since boot, behind the boot's own id; none: there is no such process.
fn started(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // A name may hold anything, a bracket and spaces too.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // A zombie has ended; whoever started it has not looked yet.
    if fields.first() == Some(&"Z") {
        return None;
    }
    let mut boot = String::new();
    File::open("/proc/sys/kernel/random/boot_id").ok()?.read_to_string(&mut boot).ok()?;
    Some(format!("{} {}", boot.trim(), fields.get(19)?))
}

/// Control groups are removed from the innermost; the files in them go with them.
fn remove_cgroup(group: &Path) -> std::io::Result<()> {
    if !group.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

async fn holds(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let polled = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while !condition().await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(END_LIMIT, polled).await.is_ok()
}
