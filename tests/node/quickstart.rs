//! The whole line: Helm, kubectl apply, a vector for an application's pod; and what people see when a model is wrong.

use std::{net::SocketAddr, time::Duration};

use embark_tests::{
    cluster::{Namespace, Node},
    image, programs,
    release::{self, Release, readme},
    sidecar::until,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long a model may take to be served, on a busy machine.
pub(super) const LIMIT: &str = "--timeout=180s";

#[tokio::test]
async fn application_pod_gets_a_vector_and_its_cache_outlives_the_process() {
    let namespace = namespace("quickstart").await;
    // The very file of the demo.
    let file = programs::root().join("examples/quickstart.yaml");
    namespace.kubectl(["apply", "--filename", file.to_str().unwrap()]).await;
    ready(&namespace).await;
    let row = namespace.kubectl(["get", "embm", "--no-headers"]).await;
    let address = format!("quickstart.{}.svc:8081", namespace.name());
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[..4], ["quickstart", "True", "1", "128"], "{row}");
    assert!(row.contains(&address), "{row}");

    let first = embed(&namespace, &address, "first").await;
    assert_eq!(first["source"], "COMPUTED", "{first}");
    assert_eq!(first["vector"].as_array().unwrap().len(), 128);
    let second = embed(&namespace, &address, "second").await;
    assert_eq!(second["source"], "HIT_MEMORY", "{second}");
    kill_container(&namespace).await;
    let third = embed(&namespace, &address, "third").await;
    assert_eq!(third["source"], "HIT_DISK", "{third}");
    assert_eq!(third["vector"], first["vector"]);

    namespace.kubectl(["delete", "embm/quickstart"]).await;
    until("nothing is left of the model", async || {
        let kinds = "pods,replicasets,deployments,services,configmaps,hpa,pdb,serviceaccounts";
        let ours = "--selector=app.kubernetes.io/instance=quickstart";
        namespace.kubectl(["get", kinds, ours, "--output=name"]).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn wrong_digest_is_told_in_the_pods_words_and_the_right_one_heals_it() {
    let namespace = namespace("digest").await;
    let mut model = quickstart();
    let right = model["spec"]["model"]["source"]["sha256"].clone();
    model["spec"]["model"]["source"]["sha256"] = "0".repeat(64).into();
    namespace.apply(&model).await.unwrap();
    let words = "spec.model.source.sha256";
    until("the words are told", async || {
        let message = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].message}";
        namespace.kubectl(["get", "embm/quickstart", message]).await.contains(words)
    })
    .await;
    let described = namespace.kubectl(["describe", "embm/quickstart"]).await;
    assert!(described.contains("ModelFailed") && described.contains(words), "{described}");
    let row = namespace.kubectl(["get", "embm", "--no-headers"]).await;
    assert_eq!(row.split_whitespace().nth(1), Some("False"), "{row}");
    model["spec"]["model"]["source"]["sha256"] = right;
    namespace.apply(&model).await.unwrap();
    ready(&namespace).await;
    // The contract of the pods that are gone went with the last revision that mounts it, or stays for a roll back.
    let contracts = "--selector=embark.dev/role=pool-contract";
    let contracts = namespace.kubectl(["get", "configmaps", contracts, "--output=name"]).await;
    assert!((1..=3).contains(&contracts.lines().count()), "{contracts}");
}

#[tokio::test]
async fn readme_commands_for_a_cluster_run() {
    Release::shared().await;
    let node = Node::shared().await;
    let commands = readme();
    assert!(commands.len() >= 5, "{commands:?}");
    let mut printed = String::new();
    // The release's own command was run already.
    for command in &commands[1..] {
        printed += &release::run(node, command).await;
    }
    for part in ["condition met", "quickstart.default.svc:8081", "\"COMPUTED\"", "Serving"] {
        assert!(printed.contains(part), "no {part} in:\n{printed}");
    }
    node.kubectl(["delete", "embm/quickstart"]).await;
}

/// A namespace for models, once the product is installed.
pub(super) async fn namespace(prefix: &str) -> Namespace {
    Release::shared().await;
    Node::shared().await.restricted_namespace(prefix).await
}

/// The quick start's model.
pub(super) fn quickstart() -> Value {
    let text = std::fs::read_to_string(programs::root().join("examples/quickstart.yaml")).unwrap();
    let manifest = embark_crds::manifest::read(&text).unwrap().remove(0);
    json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": manifest.metadata.name },
        "spec": manifest.spec,
    })
}

/// Waits until the quick start is served, and its Service leads to it: a node comes to know of a pod that is ready a moment
/// later than others do.
pub(super) async fn ready(namespace: &Namespace) {
    namespace.kubectl(["wait", "--for=condition=Ready", "embm/quickstart", LIMIT]).await;
    let path = "--output=jsonpath={.spec.clusterIP}";
    let address = namespace.kubectl(["get", "service", "quickstart", path]).await;
    let forwarded = Node::shared().await.forward(&address, 8081).await;
    until("its Service leads to it", async || answers(forwarded).await).await;
}

/// Whether anything is said to who begins to speak HTTP/2: settings, or an alert that this is no TLS.
async fn answers(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        stream.read_u8().await
    };
    // Past it, another is asked.
    timeout(Duration::from_secs(5), asked).await.is_ok_and(|answer| answer.is_ok())
}

/// A pod of the sidecar's image that does something else: the manifest of an application of ours.
pub(super) fn application(name: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "application", "image": image::SIDECAR, "args": arguments,
                "stdin": true, "stdinOnce": true,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// Embeds one text from a pod of its own, through the Service, and gives the line that came of it.
pub(super) async fn embed(namespace: &Namespace, address: &str, pod: &str) -> Value {
    let text = "The weather is lovely today.";
    let arguments = ["embed", "--address", address, "--model", "quickstart", text];
    namespace.apply(&application(pod, &arguments)).await.unwrap();
    let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
    namespace.kubectl(["wait", succeeded, &format!("pod/{pod}"), LIMIT]).await;
    let log = namespace.kubectl(["logs", pod]).await;
    serde_json::from_str(log.trim()).unwrap_or_else(|error| panic!("{error}: {log}"))
}

/// Kills the process of the model's one pod, and waits until its next one serves.
async fn kill_container(namespace: &Namespace) {
    let ours = "--selector=app.kubernetes.io/instance=quickstart";
    let uid =
        namespace.kubectl(["get", "pods", ours, "--output=jsonpath={.items[0].metadata.uid}"]);
    let id = process_of(&uid.await).expect("the pod has a process");
    let killed = std::process::Command::new("kill").args(["-KILL", &id]).status();
    assert!(killed.expect("kill runs").success());
    until("the container runs anew", async || {
        let status = "--output=jsonpath={.items[0].status.containerStatuses[0].restartCount}";
        namespace.kubectl(["get", "pods", ours, status]).await == "1"
    })
    .await;
    ready(namespace).await;
    let pods = ["wait", "--for=condition=Ready", "pod", ours, LIMIT];
    namespace.kubectl(pods).await;
}

/// The id of the sidecar in a pod, seen from outside of its namespaces.
pub(super) fn process_of(uid: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.into_iter().find_map(|process| {
        let read = |file: &str| std::fs::read_to_string(process.path().join(file)).ok();
        let is_sidecar = read("comm")?.trim() == "embark-sidecar";
        (is_sidecar && read("cgroup")?.contains(uid))
            .then(|| process.file_name().to_string_lossy().into_owned())
    })
}
