//! The product as its users install it: the chart on a node, by Helm.

use tokio::sync::OnceCell;

use crate::{cluster::Node, documents, image, programs};

/// The one release of the chart on the node of this test binary.
#[derive(Debug)]
pub struct Release {
    node: &'static Node,
}

/// How long a roll-out may take, on a busy machine.
const LIMIT: &str = "--timeout=180s";

// === impl Release ===

impl Release {
    /// The release, installed by the first test that asks.
    pub async fn shared() -> &'static Release {
        static SHARED: OnceCell<Release> = OnceCell::const_new();
        SHARED.get_or_init(Self::install).await
    }

    async fn install() -> Release {
        let node = Node::shared().await;
        let install = readme().remove(0);
        assert!(install.starts_with("helm install "), "{install}");
        let installed = run(node, &install).await;
        assert!(installed.contains("kubectl get embm"), "{installed}");
        Release { node }
    }

    /// Ends the operator's pod, and waits until another has taken its place.
    pub async fn restart_operator(&self) {
        let rollout = ["rollout", "--namespace=embark"];
        self.node.kubectl(rollout.iter().chain(&["restart", "deployment/embark"])).await;
        self.node.kubectl(rollout.iter().chain(&["status", "deployment/embark", LIMIT])).await;
    }
}

// === free functions ===

/// README's commands for a cluster. The first installs the operator.
pub fn readme() -> Vec<String> {
    let in_a_cluster = |command: &documents::Command| command.heading == documents::IN_A_CLUSTER;
    let commands = documents::commands("README.md").into_iter().filter(in_a_cluster);
    commands.map(|command| command.line).collect()
}

/// Runs a command as a reader of README does, and gives what it printed.
///
/// # Panics
/// It fails.
pub async fn run(node: &Node, line: &str) -> String {
    let mut shell = node.command("bash");
    shell.args(["-euo", "pipefail", "-c", line]).current_dir(programs::root());
    shell.env("IMAGES", image::REPOSITORY);
    let ran = programs::run(shell, b"").await;
    assert_eq!(ran.code, 0, "{line}\n{}{}", ran.output, ran.errors);
    ran.output
}
