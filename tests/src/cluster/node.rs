//! What makes a node of a control plane: network, container runtime, kubelet, Services, DNS, metrics. All of it runs in
//! network, mount and process namespaces of its own, so that nothing of it is seen outside and all of it ends with
//! their first process.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::json;
use tokio::process::Command;

use super::{
    component::{Component, Components},
    control::{self, Ports},
    state::State,
};

/// The node's address, in its own network namespace.
pub(super) const ADDRESS: &str = "10.200.0.1";
const PODS: &str = "10.244.0.0/16";
/// Where CNI plugins are: Debian's folder, then that of others.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// What the kubelet and the container runtime write outside of the folders they can be told: theirs alone, here.
const HIDDEN: [&str; 3] = ["/run", "/var/log", "/var/lib/kubelet"];

/// A whole cluster of one node, which is Ready.
pub(super) async fn start(
    state: &State,
    components: &mut Components,
    images: &[String],
) -> anyhow::Result<()> {
    hide_host().await?;
    make_network().await?;
    control::start_on(state, components, Ports::USUAL, ADDRESS).await?;
    components.start(control::controller_manager(state)?)?;
    let scheduler = Component::new("kube-scheduler")?.options("leader-elect=false");
    components.start(control::authenticated(scheduler, state, "scheduler"))?;
    start_containers(state, components, images).await?;
    components.start(kubelet(state)?)?;
    components.start(proxy(state)?)?;
    components.start(dns(state)?)?;
    components.start(metrics(state)?)?;
    let manifest = state.path("services.json");
    fs::write(&manifest, services().to_string())?;
    control::kubectl(state, &["apply", "--filename", &manifest.display().to_string()]).await?;
    let ready = async || {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let status = control::kubectl(state, &["get", "node", "node", "--output", path]).await;
        status.is_ok_and(|status| status == "True")
    };
    components.until("the node is ready", ready).await?;
    let answers = async || tokio::net::TcpStream::connect((ADDRESS, 53)).await.is_ok();
    components.until("cluster DNS answers", answers).await
}

async fn hide_host() -> anyhow::Result<()> {
    for folder in HIDDEN {
        fs::create_dir_all(folder)?;
        run("mount", &["-t", "tmpfs", "tmpfs", folder]).await?;
    }
    Ok(())
}

/// A network with one address. A bridge bears it, since not every kernel has interfaces of type dummy.
async fn make_network() -> anyhow::Result<()> {
    let address = format!("{ADDRESS}/24");
    let commands: [&[&str]; 5] = [
        &["link", "set", "lo", "up"],
        &["link", "add", "node", "type", "bridge"],
        &["address", "add", &address, "dev", "node"],
        &["link", "set", "node", "up"],
        &["route", "add", "default", "via", ADDRESS, "dev", "node"],
    ];
    for command in commands {
        run("ip", command).await?;
    }
    Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}

async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {}: {errors}", arguments.join(" "));
    Ok(())
}

/// containerd, with the images in it: once the kubelet runs, an image that is not there is asked of a registry.
async fn start_containers(
    state: &State,
    components: &mut Components,
    images: &[String],
) -> anyhow::Result<()> {
    let socket = state.path("containerd.sock");
    let network = state.path("network");
    fs::create_dir_all(&network)?;
    let plugins = PLUGINS.into_iter().find(|folder| Path::new(folder).join("ptp").is_file());
    let plugins = plugins.context("the CNI plugins are not installed")?;
    let folder = state.folder().display();
    fs::write(
        state.path("containerd.toml"),
        format!(
            r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE, runc dies of a lowered oom_score_adj.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/network"
"#,
            pause = crate::image::PAUSE,
        ),
    )?;
    fs::write(network.join("pods.conflist"), pod_network(state).to_string())?;
    let containerd = Component::new("containerd")?;
    components.start(containerd.option("config", state.path("containerd.toml")))?;
    let listens = async || tokio::net::UnixStream::connect(&socket).await.is_ok();
    components.until("containerd listens", listens).await?;
    let socket = socket.display().to_string();
    for image in images {
        let import = ["--address", &socket, "--namespace", "k8s.io", "images", "import", image];
        run("ctr", &import).await?;
    }
    Ok(())
}

/// A link for each pod: the bridge plugin would lose Services' answers to pods of the same bridge.
fn pod_network(state: &State) -> serde_json::Value {
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "ptp", "ipMasq": true, "ipam": {
            "type": "host-local",
            "dataDir": state.path("addresses"),
            "ranges": [[{"subnet": "10.244.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]})
}

fn kubelet(state: &State) -> anyhow::Result<Component> {
    let group = state.unique_name();
    for controller in controllers()? {
        fs::create_dir_all(controller.join(&group))?;
    }
    let certificates = control::certificates(state);
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": certificates.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", state.path("containerd.sock").display()),
        "cgroupDriver": "cgroupfs",
        // Its own: the kubelet of another cluster would end pods that it does not know.
        "cgroupRoot": format!("/{group}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "address": ADDRESS,
        "tlsCertFile": certificates.join("apiserver.crt"),
        "tlsPrivateKeyFile": certificates.join("apiserver.key"),
        "imageMinimumGCAge": "24h",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "resolvConf": "/dev/null",
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "podLogsDir": state.path("pod-logs"),
    });
    let path = state.path("kubelet.json");
    fs::write(&path, configuration.to_string())?;
    Ok(Component::new("kubelet")?
        .option("config", path)
        .option("kubeconfig", control::kubeconfig_of(state, "kubelet"))
        .option("root-dir", state.path("kubelet"))
        .option("node-ip", ADDRESS)
        .options("hostname-override=node"))
}

/// The roots of the control groups: one for each controller in version 1, one for all in version 2.
fn controllers() -> anyhow::Result<Vec<std::path::PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut controllers = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            controllers.push(entry.path());
        }
    }
    Ok(controllers)
}

fn proxy(state: &State) -> anyhow::Result<Component> {
    Ok(Component::new("kube-proxy")?
        .option("kubeconfig", control::kubeconfig_of(state, "proxy"))
        .option("cluster-cidr", PODS)
        // It may not write the limits of connection tracking.
        .options(
            "hostname-override=node proxy-mode=nftables conntrack-max-per-core=0 conntrack-min=0",
        ))
}

fn dns(state: &State) -> anyhow::Result<Component> {
    let kubeconfig = control::kubeconfig_of(state, "admin");
    let corefile = format!(
        ".:53 {{
  bind {ADDRESS}
  errors
  cache 5
  kubernetes cluster.local {{
    kubeconfig {} embark
  }}
}}
",
        kubeconfig.display()
    );
    fs::write(state.path("Corefile"), corefile)?;
    Ok(Component::new("coredns")?.short("conf", state.path("Corefile")))
}

fn metrics(state: &State) -> anyhow::Result<Component> {
    let server =
        Component::new("metrics-server")?.option("cert-dir", state.path("metrics-server")).options(
            "secure-port=4443 kubelet-insecure-tls=true metric-resolution=15s
             kubelet-preferred-address-types=InternalIP",
        );
    Ok(control::authenticated(server, state, "admin"))
}

/// DNS and metrics are processes of the node, behind Services whose endpoints are written by hand.
fn services() -> serde_json::Value {
    let service = |name: &str, spec: serde_json::Value| {
        json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
               "metadata": {"name": name, "namespace": "kube-system"}})
    };
    let endpoint = |name: &str, ports: serde_json::Value| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
               "metadata": {"name": format!("{name}-1"), "namespace": "kube-system",
                            "labels": {"kubernetes.io/service-name": name}},
               "addressType": "IPv4", "ports": ports,
               "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}]})
    };
    let dns = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        service("kube-dns", json!({"clusterIP": "10.96.0.10", "ports": dns})),
        endpoint("kube-dns", dns),
        service("metrics-server", json!({"ports": [{"port": 443, "targetPort": 4443}]})),
        endpoint("metrics-server", json!([{"name": "", "port": 4443, "protocol": "TCP"}])),
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
         "metadata": {"name": "v1beta1.metrics.k8s.io"},
         "spec": {
            "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
            "group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 100, "versionPriority": 100,
         }},
    ]})
}
