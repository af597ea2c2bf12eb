//! A cluster's processes, as those who started them see them.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    time::{interval, timeout},
};

use super::{assets, state::State};

/// How long a process may take to leave by itself; the API server would take a minute.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// How long anything of a cluster may take to come up; far above what it takes on a busy machine.
const UP_LIMIT: Duration = Duration::from_secs(240);
const LOG_TAIL_LINES: usize = 15;

/// How a process is started.
#[derive(Clone, Debug)]
pub(super) struct Component {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// The processes of a cluster, in the order of their start.
#[derive(Debug)]
pub(super) struct Components {
    state: State,
    /// Ids mean something to others only outside of a process namespace of one's own.
    notes_ids: bool,
    running: Vec<(Component, Option<Child>)>,
}

// === impl Component ===

impl Component {
    /// A program of a cluster, found by its name.
    pub(super) fn new(name: &'static str) -> anyhow::Result<Component> {
        Ok(Component { name, program: assets::find(name)?, arguments: Vec::new() })
    }

    /// `--name=value`
    pub(super) fn option(mut self, name: &str, value: impl Into<OsString>) -> Component {
        let mut option = OsString::from(format!("--{name}="));
        option.push(value.into());
        self.arguments.push(option);
        self
    }

    /// `--name=value` for each line `name=value`.
    pub(super) fn options(mut self, lines: &str) -> Component {
        self.arguments.extend(lines.split_whitespace().map(|line| format!("--{line}").into()));
        self
    }

    /// `-name value`
    pub(super) fn short(mut self, name: &str, value: impl Into<OsString>) -> Component {
        self.arguments.extend([OsString::from(format!("-{name}")), value.into()]);
        self
    }
}

// === impl Components ===

impl Components {
    pub(super) fn new(state: State, notes_ids: bool) -> Components {
        Components { state, notes_ids, running: Vec::new() }
    }

    /// Starts a process.
    pub(super) fn start(&mut self, component: Component) -> anyhow::Result<()> {
        let child = self.spawn(&component)?;
        self.running.push((component, Some(child)));
        Ok(())
    }

    /// Ends the process of this name, which may be started again.
    pub(super) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let (_, child) = self.named(name)?;
        if let Some(child) = child.take() {
            end(child).await?;
        }
        Ok(())
    }

    /// Starts the process of this name as it was started before.
    pub(super) fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let (component, child) = self.named(name)?;
        anyhow::ensure!(child.is_none(), "{name} runs");
        let component = component.clone();
        let started = self.spawn(&component)?;
        self.named(name)?.1 = Some(started);
        Ok(())
    }

    /// Ends all of them, the last to be started first.
    pub(super) async fn stop_all(&mut self) -> anyhow::Result<()> {
        while let Some((_, child)) = self.running.pop() {
            if let Some(child) = child {
                end(child).await?;
            }
        }
        Ok(())
    }

    /// Waits until a condition holds.
    ///
    /// # Errors
    /// It does not come to hold, or a process has ended, with the end of its log.
    pub(super) async fn until(
        &mut self,
        what: &str,
        mut holds: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let polled = timeout(UP_LIMIT, async {
            let mut ticks = interval(Duration::from_millis(100));
            while !holds().await {
                self.all_run()?;
                ticks.tick().await;
            }
            anyhow::Ok(())
        });
        polled.await.with_context(|| format!("it never came to be that {what}"))?
    }

    fn all_run(&mut self) -> anyhow::Result<()> {
        for (component, child) in &mut self.running {
            if let Some(child) = child
                && let Some(status) = child.try_wait()?
            {
                let log = fs::read_to_string(self.state.path(log_of(component.name)));
                let log = log.unwrap_or_default();
                let skipped = log.lines().count().saturating_sub(LOG_TAIL_LINES);
                let tail: Vec<&str> = log.lines().skip(skipped).collect();
                bail!("{} has ended, {status}: {}", component.name, tail.join("\n"));
            }
        }
        Ok(())
    }

    fn spawn(&self, component: &Component) -> anyhow::Result<Child> {
        let mut options = File::options();
        let log =
            options.create(true).append(true).open(self.state.path(log_of(component.name)))?;
        // Whatever happens to the process that started it, it does not stay.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&component.program)
            .args(&component.arguments)
            .current_dir(self.state.folder())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("{} cannot start", component.name))?;
        if let (true, Some(id)) = (self.notes_ids, child.id()) {
            self.state.note(component.name, id)?;
        }
        Ok(child)
    }

    fn named(&mut self, name: &str) -> anyhow::Result<&mut (Component, Option<Child>)> {
        let found = self.running.iter_mut().find(|(component, _)| component.name == name);
        found.with_context(|| format!("this cluster has no {name}"))
    }
}

async fn end(mut child: Child) -> anyhow::Result<()> {
    let Some(id) = child.id() else {
        return Ok(());
    };
    // It may have ended by itself.
    let _ = Command::new("kill").args(["-TERM", &id.to_string()]).output().await;
    if timeout(LEAVE_LIMIT, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

fn log_of(name: &str) -> PathBuf {
    PathBuf::from(format!("logs/{name}.log"))
}
