//! The operator as a process of its own, with the permissions that the chart gives it and no others.

use std::{path::PathBuf, process::Stdio, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;
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
    launch: Launch,
}

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Whom it acts as, and how it reaches the API server.
    pub kubeconfig: PathBuf,
    /// The namespace of its Lease.
    pub namespace: String,
    /// What it calls itself.
    pub identity: String,
    /// The image of the pods that it makes.
    pub image: String,
    /// Arguments beside those that every operator has.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
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
/// An annotation that is another each time.
const TOUCHED: &str = "example.com/touched";
/// The release's name that the chart's roles are rendered for.
const RELEASE: &str = "embark";

// === impl Alone ===

impl Alone {
    /// Waits for its turn on the shared control plane, and starts an operator whose Lease is in this namespace.
    pub async fn start(namespace: &Namespace) -> Alone {
        Self::start_as(Operator::start(namespace)).await
    }

    /// Waits for its turn, and starts an operator in this way.
    pub(crate) async fn start_as(start: impl Future<Output = Operator>) -> Alone {
        let turn = TURN.lock().await;
        Alone { operator: start.await, _turn: turn }
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
        let launch = Launch { identity: "restarted".to_owned(), ..self.operator.launch.clone() };
        self.operator.stop().await;
        meanwhile.await;
        Alone { operator: Operator::launch(launch).await, _turn: self._turn }
    }

    /// Ends the operator, and then its turn.
    pub async fn stop(self) {
        self.operator.stop().await;
    }
}

// === impl Launch ===

impl Launch {
    /// With the roles of the chart.
    async fn of_chart(namespace: &Namespace) -> Launch {
        let permissions =
            render(namespace.plane(), namespace.name(), &["service_account", "rbac"]).await;
        Self::new(namespace, &permissions).await
    }

    /// As the chart's service account, once the definition and these permissions are applied.
    pub(crate) async fn new(namespace: &Namespace, permissions: &str) -> Launch {
        let plane = namespace.plane();
        apply_definition(plane).await;
        let applied = plane.try_kubectl(["apply", "--filename", "-"], permissions).await;
        assert_eq!(applied.code, 0, "{}", applied.errors);
        Launch {
            kubeconfig: plane.service_account_kubeconfig(namespace.name(), RELEASE).await,
            namespace: namespace.name().to_owned(),
            identity: "operator".to_owned(),
            image: IMAGE.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }
}

// === impl Operator ===

impl Operator {
    /// Applies the definition and the chart's roles, and starts an operator as the chart's service account.
    pub async fn start(namespace: &Namespace) -> Operator {
        Self::launch(Launch::of_chart(namespace).await).await
    }

    /// Starts an operator with a webhook, with the roles of the chart as these values make them, and with more arguments.
    pub async fn start_with(namespace: &Namespace, values: &[&str], more: &[&str]) -> Operator {
        let (plane, name) = (namespace.plane(), namespace.name());
        let files = ["service_account", "rbac", "webhook"];
        let permissions = render_with(plane, name, (&files, values)).await;
        let mut arguments = vec![
            "--webhook-listen=127.0.0.1:0".to_owned(),
            format!("--webhook-configuration={RELEASE}-{name}-injection"),
        ];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        Self::start_permitted(namespace, &permissions, arguments).await
    }

    /// Starts an operator with these permissions and more arguments.
    pub(crate) async fn start_permitted(
        namespace: &Namespace,
        permissions: &str,
        arguments: Vec<String>,
    ) -> Operator {
        let launch = Launch::new(namespace, permissions).await;
        Self::launch(Launch { arguments, ..launch }).await
    }

    /// The same, with a proxy between it and the API server.
    pub async fn start_through_proxy(namespace: &Namespace) -> (Operator, ApiProxy) {
        let launch = Launch::of_chart(namespace).await;
        let proxy = ApiProxy::start(&launch.kubeconfig).await;
        let kubeconfig = proxy.kubeconfig().to_owned();
        (Self::launch(Launch { kubeconfig, ..launch }).await, proxy)
    }

    /// Starts another operator through a proxy.
    pub async fn another_through(&self, proxy: &ApiProxy, identity: &str) -> Operator {
        self.another_with_image(identity, (proxy, IMAGE)).await
    }

    /// Starts another operator through a proxy, which gives pods another image.
    pub async fn another_with_image(&self, identity: &str, way: (&ApiProxy, &str)) -> Operator {
        let (kubeconfig, image) = (way.0.kubeconfig().to_owned(), way.1.to_owned());
        let identity = identity.to_owned();
        Self::launch(Launch { kubeconfig, image, identity, ..self.launch.clone() }).await
    }

    /// Starts another operator with the permissions of this one, through a proxy of its own.
    pub async fn another_through_its_own(&self, identity: &str) -> (Operator, ApiProxy) {
        let proxy = ApiProxy::start(&self.launch.kubeconfig).await;
        (self.another_through(&proxy, identity).await, proxy)
    }

    /// Starts another operator with the permissions of this one.
    pub async fn another(&self, identity: &str) -> Operator {
        self.another_with(identity, &[]).await
    }

    /// Starts another operator with the permissions of this one, and with these variables of its environment.
    pub async fn another_with(&self, identity: &str, variables: &[(&str, &str)]) -> Operator {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let (identity, variables) = (identity.to_owned(), variables.collect());
        Self::launch(Launch { identity, variables, ..self.launch.clone() }).await
    }

    /// Starts an operator.
    pub async fn launch(launch: Launch) -> Operator {
        let mut command = Command::new(programs::operator());
        command
            .args(["run", "--log-format=json", "--listen=127.0.0.1:0"])
            .arg(format!("--sidecar-image={}", launch.image))
            .arg(format!("--namespace={}", launch.namespace))
            .arg(format!("--identity={}", launch.identity))
            .args(&launch.arguments)
            .env("KUBECONFIG", &launch.kubeconfig)
            .envs(launch.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the operator starts");
        let log = Arc::new(Mutex::new(String::new()));
        tokio::spawn(follow(child.stderr.take().expect("it is piped"), Arc::clone(&log)));
        let mut operator = Operator { child, address: String::new(), log, launch };
        operator.wait_for_line("\"listening\"").await;
        operator.address = operator.logged_address("\"listening\"");
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

    /// The address of its port of probes and metrics.
    pub fn address(&self) -> &str {
        &self.address
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

    /// Touches a model, and waits until the operator has reconciled it as it is then. What it counts is of every namespace.
    pub async fn reconciles(&self, namespace: &Namespace, model: &str) {
        let level = "embark_operator::controller=debug,info";
        let (code, _) = crate::sidecar::http_put(&self.address, "/log-level", level).await;
        assert_eq!(code, 200);
        let object = format!("embm/{model}");
        let touched = format!("{TOUCHED}={}.{}", self.id(), self.log().len());
        let touch = ["annotate", &object, "--overwrite", &touched, "--output=json"];
        let touched: Value = serde_json::from_str(&namespace.kubectl(touch).await).expect("JSON");
        let version =
            |value: &Value| value.as_str().and_then(|version| version.parse::<u64>().ok());
        let since = version(&touched["metadata"]["resourceVersion"]).expect("it has a version");
        let is_it = |line: &Value| {
            let of = |span: &Value| span["model"] == model && span["namespace"] == namespace.name();
            line["message"] == "reconciled"
                && version(&line["version"]) >= Some(since)
                && line["spans"].as_array().is_some_and(|spans| spans.iter().any(of))
        };
        until(&format!("{model} is reconciled as of {since}"), async || {
            let log = self.log();
            let lines = log.lines().filter(|line| line.contains("\"reconciled\""));
            lines.filter_map(|line| serde_json::from_str(line).ok()).any(|line| is_it(&line))
        })
        .await;
    }

    /// How often it has reconciled, in every namespace: on a control plane that others use too, it says nothing of a test's.
    pub async fn all_reconciles(&self) -> f64 {
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

    /// The address in the line of its log that has this in it.
    pub fn logged_address(&self, part: &str) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains(part)).expect("it was waited for");
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

/// These templates of the chart, such as its roles and bindings, for an operator in this namespace.
pub(crate) async fn render(plane: &ControlPlane, namespace: &str, files: &[&str]) -> String {
    render_with(plane, namespace, (files, &[])).await
}

/// The same with these values, as Helm's `--set` takes them.
pub(crate) async fn render_with(
    plane: &ControlPlane,
    namespace: &str,
    (files, values): (&[&str], &[&str]),
) -> String {
    let mut template = plane.command("helm");
    template.arg("template").arg(RELEASE).arg(programs::root().join("charts/embark"));
    template.args(["--namespace", namespace]);
    for file in files {
        template.arg("--show-only").arg(format!("templates/{file}.yaml"));
    }
    for value in values {
        template.args(["--set", value]);
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
