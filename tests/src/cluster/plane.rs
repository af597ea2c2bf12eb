//! A cluster, as tests have it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Level, Namespace, assets, evidence, kubeconfig, lines};
use crate::{image, programs, programs::Finished};

/// An API server with what it needs, and RBAC and Pod Security as they are by default.
#[derive(Clone, Debug)]
pub struct ControlPlane(Arc<Connection>);

/// A control plane with a node: pods run. Its Services and pods have addresses inside of the cluster alone.
#[derive(Clone, Debug)]
pub struct Node(ControlPlane);

#[derive(Debug)]
struct Connection {
    /// The state folder; of somebody else's cluster, a folder for what is written here.
    folder: PathBuf,
    kubeconfig: PathBuf,
    /// None: the cluster is somebody else's.
    guard: Option<Arc<Mutex<Guard>>>,
}

#[derive(Debug)]
struct Guard {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// The control plane of this test binary, started by the first test that asks.
    pub async fn shared() -> &'static ControlPlane {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED
            .get_or_init(async || match std::env::var_os("EMBARK_TEST_KUBECONFIG") {
                Some(kubeconfig) => Self::existing(kubeconfig.into()),
                None => Self::start().await,
            })
            .await
    }

    /// A control plane of this test's own. It ends with its last clone.
    pub async fn start() -> ControlPlane {
        Self::up(Level::ControlPlane, Vec::new()).await
    }

    /// A client, as administrator. Each test has its own: a client ends with the runtime that it was made in.
    pub async fn client(&self) -> Client {
        self.client_of(self.kubeconfig()).await
    }

    /// A client with another kubeconfig.
    pub async fn client_of(&self, kubeconfig: &Path) -> Client {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("it was written for this");
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Client::try_from(config.expect("it names a server")).expect("its certificates are good")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.0.kubeconfig
    }

    /// A kubeconfig of a ServiceAccount, with its token.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> PathBuf {
        let create = ["create", "token", name, "--namespace", namespace, "--duration", "24h"];
        let token = self.kubectl(create).await;
        self.kubeconfig_with(&format!("{namespace}.{name}"), &json!({"token": token.trim()}))
    }

    /// A kubeconfig of a user in groups.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> PathBuf {
        let mut credentials = self.read_kubeconfig()["users"][0]["user"].take();
        credentials["as"] = user.into();
        credentials["as-groups"] = groups.into();
        self.kubeconfig_with(user, &credentials)
    }

    /// What kubectl prints, as administrator.
    ///
    /// # Panics
    /// kubectl fails.
    pub async fn kubectl(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let Finished { code, output, errors } = self.try_kubectl(arguments, "").await;
        assert_eq!(code, 0, "kubectl: {errors}{output}");
        output
    }

    /// What came of kubectl, as administrator, with this standard input.
    pub async fn try_kubectl(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Finished {
        let mut kubectl = self.command("kubectl");
        kubectl.args(arguments);
        programs::run(kubectl, input.as_bytes()).await
    }

    /// A program that finds this cluster, as administrator, and kubectl and helm on its PATH: one of the cluster's (`helm`,
    /// `helm-unittest`), one of this machine's, or a path.
    pub fn command(&self, program: impl AsRef<Path>) -> tokio::process::Command {
        let program = program.as_ref();
        let found = program.to_str().map_or_else(|| Ok(program.to_owned()), assets::find);
        let path = std::env::join_paths(assets::folders()).expect("they came from such a variable");
        let mut command =
            tokio::process::Command::new(found.unwrap_or_else(|_| program.to_owned()));
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", path);
        let own = [
            ("KUBECACHEDIR", "kubectl-cache"),
            ("HELM_CACHE_HOME", "helm/cache"),
            ("HELM_CONFIG_HOME", "helm/config"),
            ("HELM_DATA_HOME", "helm/data"),
        ];
        for (variable, folder) in own {
            command.env(variable, self.folder().join(folder));
        }
        command
    }

    /// A new namespace, whose pods may do what they like. It goes with the value.
    pub async fn namespace(&self, prefix: &str) -> Namespace {
        Namespace::create(self.clone(), prefix, json!({})).await
    }

    /// A new namespace that refuses pods which do not meet Pod Security `restricted`.
    pub async fn restricted_namespace(&self, prefix: &str) -> Namespace {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        Namespace::create(self.clone(), prefix, labels).await
    }

    /// Ends a component, such as `kube-apiserver`. It is no more when this returns.
    pub async fn stop_component(&self, name: &str) {
        self.ask(format!("stop {name}")).await;
    }

    /// Starts a component again as it was started. The API server is ready when this returns.
    pub async fn start_component(&self, name: &str) {
        self.ask(format!("start {name}")).await;
    }

    /// Keeps logs, events and this namespace's objects where no clean-up reaches: in the folder that is returned.
    pub fn keep_evidence(&self, namespace: Option<&str>) -> PathBuf {
        evidence::keep(self, namespace).expect("evidence can be kept")
    }

    /// Ends a cluster of a test's own, and returns when nothing is left of it.
    pub async fn shut_down(self) {
        let guard = self.0.guard.clone().expect("it is ours");
        let down = tokio::task::spawn_blocking(move || {
            let mut guard = guard.lock();
            guard.commands = None;
            guard.child.wait()
        });
        let status = down.await.expect("it does not panic").expect("the guard is our child");
        assert!(status.success(), "the guard could not take the cluster down: {status}");
    }

    /// The id of the process that is the cluster's guard.
    pub fn guard_id(&self) -> u32 {
        self.0.guard.as_ref().expect("it is ours").lock().child.id()
    }

    /// The folder with all that the cluster has; it is deleted with the cluster.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    pub(super) fn is_ours(&self) -> bool {
        self.0.guard.is_some()
    }

    fn existing(kubeconfig: PathBuf) -> ControlPlane {
        let folder = tempfile::tempdir().expect("a folder can be made").keep();
        ControlPlane(Arc::new(Connection { folder, kubeconfig, guard: None }))
    }

    async fn up(level: Level, images: Vec<PathBuf>) -> ControlPlane {
        let started = tokio::task::spawn_blocking(move || Guard::start(level, &images));
        let (guard, folder) = match started.await.expect("it does not panic") {
            Ok(started) => started,
            Err(error) => panic!("{error:#}"),
        };
        let kubeconfig = folder.join("kubeconfig");
        let guard = Some(Arc::new(Mutex::new(guard)));
        ControlPlane(Arc::new(Connection { folder, kubeconfig, guard }))
    }

    fn kubeconfig_with(&self, name: &str, user: &Value) -> PathBuf {
        let path = self.folder().join(format!("{name}.kubeconfig"));
        let config = kubeconfig::for_user(&self.read_kubeconfig(), user).to_string();
        fs::write(&path, config).expect("a kubeconfig can be written");
        path
    }

    fn read_kubeconfig(&self) -> Value {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("it is there");
        serde_json::to_value(kubeconfig).expect("it was read from such")
    }

    async fn ask(&self, command: String) -> String {
        let guard = self.0.guard.clone().expect("somebody else's cluster is not to be changed");
        let asked = tokio::task::spawn_blocking(move || guard.lock().ask(&command));
        match asked.await.expect("it does not panic") {
            Ok(answer) => answer,
            Err(error) => panic!("{error:#}"),
        }
    }
}

// === impl Node ===

impl Node {
    /// The node of this test binary, started by the first test that asks, with every image of [`image`] in it.
    pub async fn shared() -> &'static Node {
        static SHARED: OnceCell<Node> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A node of this test's own. It ends with its last clone.
    pub async fn start() -> Node {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let images = image::all().iter().map(|image| image.write(folder.path())).collect();
        Node(ControlPlane::up(Level::Node, images).await)
    }

    /// An address on this machine that leads to one in the cluster, of a pod or Service.
    pub async fn forward(&self, address: &str, port: u16) -> SocketAddr {
        let port = self.0.ask(format!("forward {address}:{port}")).await;
        (Ipv4Addr::LOCALHOST, port.parse().expect("the guard answers with a port")).into()
    }
}

impl Deref for Node {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.0
    }
}

// === impl Guard ===

impl Guard {
    fn start(level: Level, images: &[PathBuf]) -> anyhow::Result<(Guard, PathBuf)> {
        let mut child = Command::new(programs::test_cluster())
            .args(["guard", level.name()])
            .args(images)
            // An interrupt from the terminal is for the test alone: the guard has something to do after it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut guard = Guard { child, commands, answers };
        let folder = guard.answer()?;
        Ok((guard, folder.into()))
    }

    fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        let commands = self.commands.as_mut().expect("the cluster is up");
        writeln!(commands, "{command}")?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        lines::parse(&line)
    }
}
