//! The operator as a process of its own, with the permissions that the chart gives it and no others.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::{Mutex as AsyncMutex, MutexGuard},
};

use crate::{
    ApiProxy,
    cluster::{ControlPlane, Namespace},
    programs,
    sidecar::until,
};

/// An operator that works on a control plane. It is killed with this value.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
    kubeconfig: PathBuf,
    namespace: String,
}

/// A control plane whose only operator is this test's: an operator works on every namespace.
#[derive(Debug)]
pub struct Alone {
    /// The operator.
    pub operator: Operator,
    _turn: MutexGuard<'static, ()>,
}

/// Whose turn it is on the shared control plane.
static TURN: AsyncMutex<()> = AsyncMutex::const_new(());
/// The image of the pods that it makes.
const IMAGE: &str = "localhost/embark-sidecar:test";
/// What of its log a failed test shows.
const LOG_TAIL_LINES: usize = 40;
/// The release's name that the chart's roles are rendered for.
const RELEASE: &str = "embark";

// === impl Alone ===

impl Alone {
    /// Waits for its turn on the shared control plane, and starts an operator whose Lease is in this namespace.
    pub async fn start(namespace: &Namespace) -> Alone {
        let turn = TURN.lock().await;
        Alone { operator: Operator::start(namespace).await, _turn: turn }
    }

    /// The same, with a proxy between the operator and the API server.
    pub async fn start_through_proxy(namespace: &Namespace) -> (Alone, ApiProxy) {
        let turn = TURN.lock().await;
        let (operator, proxy) = Operator::start_through_proxy(namespace).await;
        (Alone { operator, _turn: turn }, proxy)
    }

    /// Ends the operator, and goes on with another in the same turn.
    pub async fn hand_over(self, next: Operator) -> Alone {
        self.operator.stop().await;
        Alone { operator: next, _turn: self._turn }
    }

    /// Ends the operator and starts another once this was done.
    pub async fn restart(self, meanwhile: impl Future<Output = ()>) -> Alone {
        let Operator { kubeconfig, namespace, .. } = &self.operator;
        let (kubeconfig, namespace) = (kubeconfig.clone(), namespace.clone());
        self.operator.stop().await;
        meanwhile.await;
        let operator = Operator::start_with(&kubeconfig, &namespace, "restarted").await;
        Alone { operator, _turn: self._turn }
    }

    /// Ends the operator, and then its turn.
    pub async fn stop(self) {
        self.operator.stop().await;
    }
}

// === impl Operator ===

impl Operator {
    /// Applies the definition and the chart's roles, and starts an operator as the chart's service account.
    pub async fn start(namespace: &Namespace) -> Operator {
        let kubeconfig = credentials(namespace).await;
        Self::start_with(&kubeconfig, namespace.name(), "operator").await
    }

    /// The same, with a proxy between it and the API server.
    pub async fn start_through_proxy(namespace: &Namespace) -> (Operator, ApiProxy) {
        let proxy = ApiProxy::start(&credentials(namespace).await).await;
        let operator = Self::start_with(proxy.kubeconfig(), namespace.name(), "operator").await;
        (operator, proxy)
    }

    /// Starts another operator through a proxy.
    pub async fn another_through(&self, proxy: &ApiProxy, identity: &str) -> Operator {
        Self::start_with(proxy.kubeconfig(), &self.namespace, identity).await
    }

    /// Starts another operator through a proxy, which gives pods another image.
    pub async fn another_with_image(&self, identity: &str, way: (&ApiProxy, &str)) -> Operator {
        let (proxy, image) = way;
        Self::launch([&self.namespace, identity, image], proxy.kubeconfig()).await
    }

    /// Starts another operator with the permissions of this one.
    pub async fn another(&self, identity: &str) -> Operator {
        Self::start_with(&self.kubeconfig, &self.namespace, identity).await
    }

    async fn start_with(kubeconfig: &Path, namespace: &str, identity: &str) -> Operator {
        Self::launch([namespace, identity, IMAGE], kubeconfig).await
    }

    async fn launch([namespace, identity, image]: [&str; 3], kubeconfig: &Path) -> Operator {
        let mut command = Command::new(programs::operator());
        command
            .args(["run", "--log-format=json", "--listen=127.0.0.1:0"])
            .arg(format!("--sidecar-image={image}"))
            .arg(format!("--namespace={namespace}"))
            .arg(format!("--identity={identity}"))
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the operator starts");
        let log = Arc::new(Mutex::new(String::new()));
        tokio::spawn(follow(child.stderr.take().expect("it is piped"), Arc::clone(&log)));
        let mut operator = Operator {
            child,
            address: String::new(),
            log,
            kubeconfig: kubeconfig.to_owned(),
            namespace: namespace.to_owned(),
        };
        operator.wait_for_line("\"listening\"").await;
        operator.address = operator.listening();
        operator
    }

    /// Waits until its log has a line with this in it.
    pub async fn wait_for_line(&self, part: &str) {
        until(&format!("the operator's log has {part}"), async || self.log().contains(part)).await;
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// What it answers at a path of its port.
    pub async fn get(&self, path: &str) -> (u16, String) {
        crate::sidecar::http_get(&self.address, path).await
    }

    /// The value of a metric, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// Waits until it has reconciled more often than it had when the test looked.
    pub async fn reconciles_again(&self, since: f64) {
        until("the operator reconciles", async || self.reconciles().await > since).await;
    }

    /// How often it has reconciled.
    pub async fn reconciles(&self) -> f64 {
        self.metric("embark_operator_reconciles_total").await
    }

    /// Sends it a signal, such as `STOP`.
    pub async fn signal(&self, name: &str) {
        let (signal, id) = (format!("-{name}"), self.id().to_string());
        let status = Command::new("kill").args([signal, id]).status().await;
        assert!(status.expect("kill runs").success());
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Kills it: it has no time to say anything.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }

    /// Ends it as a kubelet does, and checks that it ended well and lacked no permission.
    pub async fn stop(mut self) {
        self.end().await;
        // The chart's roles are all that it has: whatever they lack shows here.
        let refused = "is forbidden: User";
        assert!(!self.log().contains(refused), "a permission is missing:\n{}", self.log());
    }

    /// Ends it as a kubelet does, and checks that it ended well. An API server that has just started knows of no permission.
    pub async fn stop_after_restarts(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        self.signal("TERM").await;
        let status = self.child.wait().await.expect("it ends");
        assert!(status.success(), "the operator ended with {status}:\n{}", self.log());
    }

    fn listening(&self) -> String {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains("\"listening\"")).expect("it was waited for");
        let line: serde_json::Value = serde_json::from_str(line).expect("the log is JSON");
        line["address"].as_str().expect("an address").to_owned()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let skipped = log.lines().count().saturating_sub(LOG_TAIL_LINES);
            let tail: Vec<&str> = log.lines().skip(skipped).collect();
            eprintln!("the end of the operator's log:\n{}", tail.join("\n"));
        }
    }
}

// === free functions ===

/// Applies the CustomResourceDefinition as the operator does it, as administrator.
pub async fn apply_definition(plane: &ControlPlane) {
    let mut apply = plane.command(programs::operator());
    apply.args(["crds", "apply"]);
    let applied = programs::run(apply, b"").await;
    assert_eq!(applied.code, 0, "{}", applied.errors);
    // It is served; lists of what there is follow a moment behind, and kubectl goes by those.
    until("kubectl finds it", async || plane.try_kubectl(["explain", "embm"], "").await.code == 0)
        .await;
}

/// A kubeconfig of the chart's service account, once the definition and the roles are applied.
async fn credentials(namespace: &Namespace) -> PathBuf {
    let plane = namespace.plane();
    apply_definition(plane).await;
    let permissions = permissions(plane, namespace.name()).await;
    let applied = plane.try_kubectl(["apply", "--filename", "-"], &permissions).await;
    assert_eq!(applied.code, 0, "{}", applied.errors);
    plane.service_account_kubeconfig(namespace.name(), RELEASE).await
}

/// The chart's service account, roles and bindings, for an operator in this namespace.
async fn permissions(plane: &ControlPlane, namespace: &str) -> String {
    let mut template = plane.command("helm");
    template.arg("template").arg(RELEASE).arg(programs::root().join("charts/embark"));
    template.args(["--namespace", namespace]);
    for file in ["service_account", "rbac"] {
        template.arg("--show-only").arg(format!("templates/{file}.yaml"));
    }
    let rendered = programs::run(template, b"").await;
    assert_eq!(rendered.code, 0, "{}", rendered.errors);
    rendered.output
}

async fn follow(log: ChildStderr, lines: Arc<Mutex<String>>) {
    let mut read = BufReader::new(log).lines();
    while let Ok(Some(line)) = read.next_line().await {
        let mut lines = lines.lock();
        lines.push_str(&line);
        lines.push('\n');
    }
}
