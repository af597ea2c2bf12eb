//! The real server as a process of its own.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

/// The longest that a start or an end may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A server that answers.
pub(crate) struct Server {
    /// Where its gRPC is, as HOST:PORT.
    pub(crate) grpc: String,
    /// Where its admin port is.
    pub(crate) admin: String,
    /// How it was called, for people.
    pub(crate) command: String,
    child: Child,
}

/// Builds the sidecar's binary and gives its path.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    // Without -p: with it, other features of shared dependencies would build them all once more.
    build.args(["build", "--bin", "embark-sidecar"]).current_dir(root);
    // What cargo told this program of its package would make build scripts run again.
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&variable);
        }
    }
    let status = build.status().context("failed to run cargo")?;
    ensure!(status.success(), "the sidecar does not build");
    let folder = std::env::current_exe()?;
    Ok(folder.with_file_name("embark-sidecar"))
}

// === impl Server ===

impl Server {
    /// Starts a server on free ports and waits until its model is ready.
    pub(crate) async fn start(binary: &Path, manifest: &Path, data: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command
            .args(["serve", "--log-format", "json", "--log-level", "info"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--manifest")
            .arg(manifest)
            .arg("--data-dir")
            .arg(data)
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| binary.display().to_string())?;
        let log = child.stderr.take().context("the log")?;
        let (grpc, admin) =
            timeout(LIMIT, ready(log)).await.context("the start took too long")??;
        let command = format!("embark-sidecar serve --manifest {}", manifest.display());
        Ok(Server { grpc, admin, command, child })
    }

    /// Ends the server as Kubernetes would, by SIGTERM, and waits for it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = self.child.id().context("the server has ended by itself")?;
        let killed = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(killed.success(), "failed to signal the server");
        let status = timeout(LIMIT, self.child.wait()).await.context("the end took too long")??;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

// === free functions ===

/// Reads the log up to the lines that say where the server listens and that it is ready, and goes on reading it.
async fn ready(log: ChildStderr) -> Result<(String, String)> {
    let mut lines = BufReader::new(log).lines();
    let mut addresses = None;
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        let Ok(entry) = serde_json::from_str::<Value>(&line) else {
            last = line;
            continue;
        };
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        match text("message").as_str() {
            "listening" => addresses = Some((text("grpc"), text("admin"))),
            "ready" => {
                // The pipe must not fill up while the server runs.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return addresses.context("the server did not say where it listens");
            }
            message => last = message.to_owned(),
        }
    }
    bail!("the server ended: {last}")
}
