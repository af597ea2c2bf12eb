//! The node itself: pods run as they would elsewhere, and nothing of it is left.

use std::{fs, path::Path, process::Command, time::Duration};

use embark_tests::{
    cluster::{Namespace, Node},
    image,
    sidecar::until,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// How long a pod may take to come to a phase, on a busy machine.
const POD_LIMIT: &str = "--timeout=180s";

#[tokio::test]
async fn restricted_pod_finds_services_by_name() {
    let namespace = Node::shared().await.restricted_namespace("dns").await;
    namespace.apply(&pod("client", image::CLIENT, &["-c", "sleep 3600"])).await.unwrap();
    wait_for(&namespace, "condition=Ready", "client").await;
    for name in
        ["kubernetes.default.svc.cluster.local", "metrics-server.kube-system.svc.cluster.local"]
    {
        let answer = namespace.kubectl(["exec", "client", "--", "nslookup", name]).await;
        assert!(answer.contains("Address: 10.96."), "{answer}");
    }
    let user = namespace.kubectl(["exec", "client", "--", "cat", "/proc/self/status"]).await;
    assert!(user.contains("Uid:\t65532\t65532\t65532\t65532"), "{user}");
}

#[tokio::test]
async fn images_of_ours_start() {
    let namespace = Node::shared().await.restricted_namespace("images").await;
    for (name, image) in [("sidecar", image::SIDECAR), ("operator", image::OPERATOR)] {
        namespace.apply(&pod(name, image, &["--version"])).await.unwrap();
        wait_for(&namespace, "jsonpath={.status.phase}=Succeeded", name).await;
        let log = namespace.kubectl(["logs", name]).await;
        assert!(log.starts_with(&format!("embark-{name} ")), "{log}");
    }
}

#[tokio::test]
async fn test_reaches_a_service_from_outside_of_the_cluster() {
    let node = Node::shared().await;
    let namespace = node.restricted_namespace("forward").await;
    let serve = "while :; do echo hello | nc -l -p 8080; done";
    namespace.apply(&pod("server", image::CLIENT, &["-c", serve])).await.unwrap();
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"},
            "spec": {"selector": {"name": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .await
        .unwrap();
    wait_for(&namespace, "condition=Ready", "server").await;
    let path = "--output=jsonpath={.spec.clusterIP}";
    let address = namespace.kubectl(["get", "service", "server", path]).await;
    let forwarded = node.forward(&address, 80).await;
    until("the Service answers", async || {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(forwarded).await.unwrap();
        let read = stream.read_to_string(&mut answer);
        // It may be between two connections.
        let _ = tokio::time::timeout(Duration::from_secs(2), read).await;
        answer == "hello\n"
    })
    .await;
}

#[tokio::test]
async fn container_past_its_memory_limit_is_killed() {
    let namespace = Node::shared().await.restricted_namespace("memory").await;
    let mut eater = pod("eater", image::CLIENT, &["-c", "x=$(cat /dev/zero | tr '\\0' x)"]);
    eater["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "20Mi"}});
    namespace.apply(&eater).await.unwrap();
    let reason = "jsonpath={.status.containerStatuses[0].state.terminated.reason}=OOMKilled";
    wait_for(&namespace, reason, "eater").await;
}

#[tokio::test]
async fn metrics_of_the_node_are_there() {
    let node = Node::shared().await;
    until("kubectl top answers", async || {
        node.try_kubectl(["top", "node", "node", "--no-headers"], "").await.output.contains("Mi")
    })
    .await;
}

#[tokio::test]
async fn node_that_is_shut_down_or_killed_leaves_nothing() {
    let networks = network_namespaces();
    let node = Node::start().await;
    let killed = node_with_a_pod(&node).await;
    let status = Command::new("kill").args(["-KILL", &node.guard_id().to_string()]).status();
    assert!(status.unwrap().success());
    until("its processes are gone", async || processes_of(&killed).is_empty()).await;
    let next = Node::start().await;
    assert_eq!(left_of(&killed), Vec::<String>::new());
    let down = node_with_a_pod(&next).await;
    (*next).clone().shut_down().await;
    assert_eq!(left_of(&down), Vec::<String>::new());
    assert_eq!(network_namespaces(), networks);
}

/// Runs a pod on a node, and says what the node's name in this machine's control groups is.
async fn node_with_a_pod(node: &Node) -> String {
    let namespace = node.namespace("left").await;
    namespace.apply(&pod("client", image::CLIENT, &["-c", "sleep 3600"])).await.unwrap();
    wait_for(&namespace, "condition=Ready", "client").await;
    node.folder().file_name().unwrap().to_str().unwrap().to_owned()
}

/// All that would be left of a node, by its name.
fn left_of(name: &str) -> Vec<String> {
    let mut left = processes_of(name);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    for root in roots.chain([Path::new("/sys/fs/cgroup").to_owned()]) {
        let group = root.join(format!("embark-{name}"));
        left.extend(group.exists().then(|| group.display().to_string()));
    }
    left
}

/// The processes that were told of a node's folder, or run in its control groups as its containers do.
fn processes_of(name: &str) -> Vec<String> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        // A process may end meanwhile.
        for file in ["cmdline", "cgroup"] {
            let text = fs::read(path.join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(&format!("{name}/")) {
                processes.push(text);
            }
        }
    }
    processes
}

fn network_namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

async fn wait_for(namespace: &Namespace, condition: &str, pod: &str) {
    let wait = format!("--for={condition}");
    namespace.kubectl(["wait", &wait, POD_LIMIT, &format!("pod/{pod}")]).await;
    let running: Pod = namespace.api().await.get(pod).await.unwrap();
    assert_eq!(running.spec.unwrap().node_name.as_deref(), Some("node"));
}

/// A pod that meets Pod Security `restricted`.
fn pod(name: &str, image: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": name, "image": image, "args": arguments,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}
