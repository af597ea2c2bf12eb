//! The process between a test and its cluster. It outlives the test, however that ends, and takes the cluster down; and
//! should it be killed itself, the cluster's processes are killed with it, and the next guard deletes what they leave.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, copy_bidirectional},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

use super::{
    Level,
    control::{self, Ports},
    inner, kubeconfig, lines, node,
    state::{self, State},
};

/// How long the components may take to end before they are killed.
const DOWN_LIMIT: Duration = Duration::from_secs(30);
/// How long the logs of what failed are kept.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The inner process, as the guard sees it.
struct Inner {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

// === impl Inner ===

impl Inner {
    fn spawn(level: Level, state: &State, images: &[String]) -> anyhow::Result<Inner> {
        let mut child = command(level)
            .arg(std::env::current_exe()?)
            .args(["inner", level.name()])
            .arg(state.folder())
            .args(images)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(state.path("logs/inner.log"))?)
            .spawn()
            .context("setpriv cannot be run")?;
        state.note("inner", child.id().context("it has not been waited for")?)?;
        let commands = child.stdin.take().context("it is piped")?;
        let answers = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        Ok(Inner { child, commands, answers })
    }

    async fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        lines::parse(&self.answers.next_line().await?.unwrap_or_default())
    }

    async fn end(mut self) -> anyhow::Result<()> {
        drop(self.commands);
        if timeout(DOWN_LIMIT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// Starts a cluster, answers with its state folder, and serves commands until standard input ends.
pub(super) async fn run(level: Level, images: &[String]) -> anyhow::Result<()> {
    let (state, _lock) = State::create(level).await?;
    let mut commands = lines::standard_input();
    let mut inner = Inner::spawn(level, &state, images)?;
    let up = tokio::select! {
        up = up(level, &state, &mut inner) => Some(up),
        // The test has ended, or says something too early.
        _ = commands.recv() => None,
    };
    match up {
        Some(Ok(())) => {
            lines::answer(&Ok(state.folder().display().to_string()))?;
            serve(&state, &mut inner, &mut commands).await?;
        }
        Some(Err(error)) => {
            let kept = keep_logs(state.folder())?;
            let error = error.context(format!("no cluster: its logs are in {}", kept.display()));
            lines::answer(&Err(error))?;
        }
        None => {}
    }
    inner.end().await?;
    state.sweep().await
}

/// Copies a cluster's logs to where they stay.
pub(super) fn keep_logs(state: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(state::kept())?;
    for entry in fs::read_dir(state::kept())? {
        let entry = entry?;
        if entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > KEPT_FOR) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let name = state.file_name().context("a state folder has a name")?;
    let kept = tempfile::Builder::new()
        .prefix(&format!("{}-", name.to_string_lossy()))
        .tempdir_in(state::kept())?
        .keep();
    for entry in fs::read_dir(state.join("logs"))? {
        let entry = entry?;
        fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    Ok(kept)
}

/// What the inner process is started by: it is killed with the guard, and all that a node has with it.
fn command(level: Level) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if level == Level::Node {
        command
            .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--mount-proc", "--propagation", "private"])
            // A namespace's first process has to wait for those that lost their parents. A shell does.
            .args(["sh", "-c", r#"exec 3<&0; "$@" <&3 3<&- & exec 3<&-; wait $!"#, "sh"]);
    }
    command
}

async fn up(level: Level, state: &State, inner: &mut Inner) -> anyhow::Result<()> {
    inner.answer().await?;
    let folder = control::certificates(state);
    let api = match level {
        Level::ControlPlane => {
            fs::copy(control::kubeconfig_of(state, "admin"), state.path("kubeconfig"))?;
            return Ok(());
        }
        Level::Node => format!("{}:{}", node::ADDRESS, Ports::USUAL.api),
    };
    let port = forward(state, api).await?;
    let admin = kubeconfig::certificate(&folder, "admin");
    let server = format!("https://127.0.0.1:{port}");
    kubeconfig::write(&state.path("kubeconfig"), &server, &folder.join("ca.crt"), &admin)
}

async fn serve(
    state: &State,
    inner: &mut Inner,
    commands: &mut mpsc::Receiver<String>,
) -> anyhow::Result<()> {
    while let Some(command) = commands.recv().await {
        let answer = match command.split_once(' ') {
            Some(("forward", address)) => {
                forward(state, address.to_owned()).await.map(|port| port.to_string())
            }
            _ => inner.ask(&command).await,
        };
        lines::answer(&answer)?;
    }
    Ok(())
}

/// A port of the loopback address that leads to an address in the node's network.
async fn forward(state: &State, address: String) -> anyhow::Result<u16> {
    let socket = inner::socket(state);
    anyhow::ensure!(socket.exists(), "this cluster has no network of its own");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (socket, address) = (socket.clone(), address.clone());
            tokio::spawn(async move {
                // A refused connection ends, as the one to its target did.
                if let Ok(mut target) = inner::dial(&socket, &address).await {
                    let _ = copy_bidirectional(&mut stream, &mut target).await;
                }
            });
        }
    });
    Ok(port)
}
