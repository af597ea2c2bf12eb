//! A real Kubernetes cluster for tests, at two levels. A control plane (etcd, API server with RBAC and Pod Security,
//! controller manager) needs no root; a node adds all that runs pods (scheduler, containerd, kubelet, kube-proxy, cluster
//! DNS, metrics), as root, in network, mount and process namespaces of its own.
//!
//! ```text
//! test ── pipe ──► guard ── pipe ──► inner ──► etcd, kube-apiserver, ... (node: inside of namespaces)
//!                  ends the cluster  starts the components
//!                  when the pipe     in order, and waits
//!                  does              for each
//! ```
//! A test binary has one of a level, which it never ends: the guard sees the test's end of the pipe close. Who dies
//! takes with it those to its right. What is left of a cluster then is a folder, which the next guard deletes.
//!
//! EMBARK_TEST_KUBECONFIG names a cluster to use instead of a control plane; KUBEBUILDER_ASSETS, a folder with
//! another etcd and kube-apiserver.

pub(crate) mod assets;
mod certificates;
mod component;
mod control;
mod evidence;
mod guard;
mod inner;
mod kubeconfig;
mod lines;
mod namespace;
mod node;
mod plane;
pub mod requests;
mod state;

use std::path::Path;

use anyhow::Context as _;

pub use assets::find as program;
pub use namespace::Namespace;
pub use plane::{ControlPlane, Node};

/// How much of a cluster is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    ControlPlane,
    Node,
}

// === impl Level ===

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::ControlPlane => "control-plane",
            Level::Node => "node",
        }
    }

    fn parse(name: &str) -> anyhow::Result<Level> {
        let level =
            [Level::ControlPlane, Level::Node].into_iter().find(|level| level.name() == name);
        level.with_context(|| format!("{name}: a cluster is control-plane or node"))
    }
}

/// What the program `embark-test-cluster` does.
///
/// # Errors
/// Other arguments than those of its head, or a cluster that does not come down. One that does not come up is an answer.
pub async fn main(arguments: Vec<String>) -> anyhow::Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["guard", level, ..] => guard::run(Level::parse(level)?, &arguments[2..]).await,
        ["inner", level, folder, ..] => {
            inner::run(Level::parse(level)?, Path::new(folder), &arguments[3..]).await
        }
        _ => anyhow::bail!("usage: embark-test-cluster guard control-plane|node [IMAGE]..."),
    }
}
