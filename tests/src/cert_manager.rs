//! cert-manager on a control plane: its definitions, and its controllers as a process.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
};

use tokio::process::Child;

use crate::cluster::{ControlPlane, assets};

/// cert-manager, which runs until it is dropped.
#[derive(Debug)]
pub struct CertManager {
    log: PathBuf,
    _process: Child,
}

// === impl CertManager ===

impl CertManager {
    /// Defines its kinds, and starts it as administrator.
    pub async fn start(plane: &ControlPlane) -> CertManager {
        let definitions = assets::find("cert-manager.crds").expect("tests/run made them");
        let definitions = definitions.to_str().expect("the folder's name is text");
        plane.kubectl(["apply", "--server-side", "--filename", definitions]).await;
        let established = "--for=condition=Established";
        plane.kubectl(["wait", established, "--timeout=60s", "--filename", definitions]).await;
        let log = plane.folder().join("cert-manager.log");
        let mut command = plane.command("cert-manager");
        command.arg(format!("--kubeconfig={}", plane.kubeconfig().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.stderr(File::create(&log).expect("a log can be made"));
        CertManager { log, _process: command.spawn().expect("it can be started") }
    }
}

impl Drop for CertManager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("cert-manager's log:\n{log}");
        }
    }
}
