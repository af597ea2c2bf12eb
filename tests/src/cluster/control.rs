//! etcd, the API server and the controller manager.

use std::{net::TcpListener, path::PathBuf};

use tokio::process::Command;

use super::{
    assets, certificates,
    component::{Component, Components},
    kubeconfig, requests,
    state::State,
};

/// How often other ports are tried when some were taken between their choice and their use.
const ATTEMPTS: usize = 5;
/// What each program says then.
const PORT_TAKEN: &str = "address already in use";

/// Where the parts of a control plane listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    etcd: u16,
    peers: u16,
    /// The API server's.
    pub(super) api: u16,
}

// === impl Ports ===

impl Ports {
    /// The usual ones, for a network namespace of one's own.
    pub(super) const USUAL: Ports = Ports { etcd: 2379, peers: 2380, api: 6443 };

    fn free() -> anyhow::Result<Ports> {
        // All are bound before the first is given back, so that they differ.
        let bound = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [etcd, peers, api] = bound.map(|port| port.and_then(|port| port.local_addr()));
        Ok(Ports { etcd: etcd?.port(), peers: peers?.port(), api: api?.port() })
    }
}

/// Where certificates are.
pub(super) fn certificates(state: &State) -> PathBuf {
    state.path("certificates")
}

/// A kubeconfig of the cluster's own for the user with the certificate of this name.
pub(super) fn kubeconfig_of(state: &State, user: &str) -> PathBuf {
    state.path(format!("{user}.kubeconfig"))
}

/// A control plane on the loopback address, on ports that were free.
pub(super) async fn start(state: &State, components: &mut Components) -> anyhow::Result<()> {
    let mut attempt = 1;
    loop {
        let Err(error) = start_on(state, components, Ports::free()?, "127.0.0.1").await else {
            break;
        };
        if attempt == ATTEMPTS || !format!("{error:#}").contains(PORT_TAKEN) {
            return Err(error);
        }
        components.stop_all().await?;
        std::fs::remove_dir_all(state.path("etcd"))?;
        attempt += 1;
    }
    components.start(controller_manager(state)?)
}

/// etcd and the API server on these ports; the API server is ready, and the kubeconfigs are there.
pub(super) async fn start_on(
    state: &State,
    components: &mut Components,
    ports: Ports,
    address: &str,
) -> anyhow::Result<()> {
    let folder = certificates(state);
    let names = ["localhost", "127.0.0.1", address, "10.96.0.1", "kubernetes.default.svc", "node"];
    certificates::write(&folder, &names)?;
    let server = format!("https://127.0.0.1:{}", ports.api);
    for user in ["admin", "controller-manager", "scheduler", "proxy", "kubelet"] {
        let certificate = kubeconfig::certificate(&folder, user);
        kubeconfig::write(
            &kubeconfig_of(state, user),
            &server,
            &folder.join("ca.crt"),
            &certificate,
        )?;
    }
    components.start(etcd(state, ports)?)?;
    components.start(api_server(state, ports, address)?)?;
    until_ready(state, components).await
}

/// Waits until the API server is ready.
pub(super) async fn until_ready(state: &State, components: &mut Components) -> anyhow::Result<()> {
    let ready = async || kubectl(state, &["get", "--raw", "/readyz"]).await.is_ok();
    components.until("the API server is ready", ready).await
}

/// kubectl as administrator: what it prints.
pub(super) async fn kubectl(state: &State, arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl = Command::new(assets::find("kubectl")?);
    kubectl.arg("--kubeconfig").arg(kubeconfig_of(state, "admin"));
    kubectl.env("KUBECACHEDIR", state.path("kubectl-cache")).args(arguments);
    let output = kubectl.kill_on_drop(true).output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// The controller manager: ServiceAccounts, garbage collection, autoscaling and the rest.
pub(super) fn controller_manager(state: &State) -> anyhow::Result<Component> {
    let folder = certificates(state);
    Ok(authenticated(Component::new("kube-controller-manager")?, state, "controller-manager")
        .option("root-ca-file", folder.join("ca.crt"))
        .option("service-account-private-key-file", folder.join("service-accounts.key"))
        .option("cluster-signing-cert-file", folder.join("ca.crt"))
        .option("cluster-signing-key-file", folder.join("ca.key"))
        .options("use-service-account-credentials=true leader-elect=false secure-port=0")
        // Tests wait for autoscalers; the usual 15 s would be most of their time.
        .options("horizontal-pod-autoscaler-sync-period=5s"))
}

/// With this user's kubeconfig for everything that the component asks the API server.
pub(super) fn authenticated(component: Component, state: &State, user: &str) -> Component {
    let kubeconfig = kubeconfig_of(state, user);
    ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .into_iter()
        .fold(component, |component, option| component.option(option, &kubeconfig))
}

fn etcd(state: &State, ports: Ports) -> anyhow::Result<Component> {
    let clients = format!("http://127.0.0.1:{}", ports.etcd);
    let peers = format!("http://127.0.0.1:{}", ports.peers);
    Ok(Component::new("etcd")?
        .option("data-dir", state.path("etcd"))
        .option("listen-client-urls", &clients)
        .option("advertise-client-urls", &clients)
        .option("listen-peer-urls", &peers)
        .option("initial-advertise-peer-urls", &peers)
        .option("initial-cluster", format!("default={peers}"))
        // Nothing in it outlives its tests.
        .options("unsafe-no-fsync=true"))
}

fn api_server(state: &State, ports: Ports, address: &str) -> anyhow::Result<Component> {
    let certificates = certificates(state);
    let authority = certificates.join("ca.crt");
    let key = certificates.join("service-accounts.key");
    let mut server = Component::new("kube-apiserver")?
        .option("etcd-servers", format!("http://127.0.0.1:{}", ports.etcd))
        .option("secure-port", ports.api.to_string())
        .option("advertise-address", address)
        .option("client-ca-file", &authority)
        .option("requestheader-client-ca-file", &authority)
        .option("service-account-key-file", key.with_extension("pub"))
        .option("service-account-signing-key-file", &key)
        .option("audit-policy-file", requests::policy(state)?)
        .option("audit-log-path", requests::log(state));
    for (option, name) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("kubelet-client-certificate", "admin.crt"),
        ("kubelet-client-key", "admin.key"),
        ("proxy-client-cert-file", "front-proxy.crt"),
        ("proxy-client-key-file", "front-proxy.key"),
    ] {
        server = server.option(option, certificates.join(name));
    }
    // On the loopback address alone, it has no address to give to pods, and reaches no Service but one that is the name of
    // this machine. Of a node it reaches the pods.
    server = server.options(match address {
        "127.0.0.1" => "bind-address=127.0.0.1 endpoint-reconciler-type=none",
        _ => "enable-aggregator-routing=true",
    });
    Ok(server.options(
        "authorization-mode=Node,RBAC
         enable-admission-plugins=NodeRestriction
         allow-privileged=true
         service-account-issuer=https://kubernetes.default.svc
         service-cluster-ip-range=10.96.0.0/16
         kubelet-preferred-address-types=InternalIP
         requestheader-allowed-names=front-proxy-client
         requestheader-username-headers=X-Remote-User
         requestheader-group-headers=X-Remote-Group
         requestheader-extra-headers-prefix=X-Remote-Extra-
         audit-log-maxsize=50
         audit-log-maxbackup=4",
    ))
}
