//! Sidecars in applications' own pods, injected by the webhook of the chart.

use std::net::SocketAddr;

use embark_tests::{
    cluster::{Namespace, Node},
    documents, image,
    release::{self, Release},
    sidecar::{http_get, until},
};
use serde_json::{Value, json};

use super::quickstart::{application, namespace, process_of, quickstart};

/// How long a pod may take, on a busy machine.
const LIMIT: &str = "--timeout=180s";
/// Where Kubernetes mounts a pod's token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TEXT: &str = "The weather is lovely today.";

#[tokio::test]
async fn application_gets_its_vector_by_the_socket_and_by_the_port_of_its_own_pod() {
    let namespace = namespace("injected").await;
    for name in ["first", "second"] {
        namespace.apply(&model(name)).await.unwrap();
    }
    // Two models in one pod; each container calls one of them, as soon as both are ready.
    let mut pod = asking(application("both", &["embed", "--model=first", TEXT]), "first,second");
    pod["metadata"]["annotations"]["embark.dev/wait-for-models"] = "true".into();
    let mut by_socket = pod["spec"]["containers"][0].clone();
    by_socket["name"] = "by-socket".into();
    by_socket["args"] = json!(["embed", "--address=$(EMBARK_SOCKET)", "--model=second", TEXT]);
    pod["spec"]["containers"].as_array_mut().unwrap().push(by_socket);
    namespace.apply(&pod).await.unwrap();
    namespace
        .kubectl(["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/both", LIMIT])
        .await;
    let mut vectors = Vec::new();
    for container in ["application", "by-socket"] {
        let log = namespace.kubectl(["logs", "both", "--container", container]).await;
        let line: Value = serde_json::from_str(log.trim()).unwrap_or_else(|_| panic!("{log}"));
        assert_eq!(line["source"], "COMPUTED", "{line}");
        vectors.push(line["vector"].clone());
    }
    assert_eq!(vectors[0].as_array().unwrap().len(), 128);
    assert_eq!(vectors[0], vectors[1]);
}

#[tokio::test]
async fn job_with_a_sidecar_completes() {
    let namespace = namespace("job").await;
    namespace.apply(&model("quickstart")).await.unwrap();
    let mut pod = asking(application("job", &["embed", TEXT]), "quickstart");
    pod["metadata"]["annotations"]["embark.dev/wait-for-models"] = "true".into();
    let mut template = json!({"metadata": pod["metadata"], "spec": pod["spec"]});
    template["metadata"].as_object_mut().unwrap().remove("name");
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"template": template, "backoffLimit": 0},
    });
    namespace.apply(&job).await.unwrap();
    namespace.kubectl(["wait", "--for=condition=Complete", "job/job", LIMIT]).await;
    let log = namespace.kubectl(["logs", "job/job", "--container=application"]).await;
    assert!(log.contains("COMPUTED"), "{log}");
}

#[tokio::test]
async fn bad_models_leave_the_application_ready_and_say_why() {
    let namespace = namespace("bad").await;
    // One with a wrong digest, and one that the operator refuses, so that it has no contract at all.
    let mut wrong = model("wrong");
    wrong["spec"]["model"]["source"]["sha256"] = "0".repeat(64).into();
    let mut refused = model("refused");
    let source = refused["spec"]["model"]["source"].clone();
    refused["spec"]["model"]["source"]["uri"] = "file://model.onnx".into();
    for model in [&wrong, &refused, &model("quickstart")] {
        namespace.apply(model).await.unwrap();
    }
    let mut pod = asking(application("app", &["-c", "sleep 3600"]), "wrong,refused,quickstart");
    pod["spec"]["containers"][0]["image"] = image::CLIENT.into();
    pod["spec"]["terminationGracePeriodSeconds"] = 1.into();
    namespace.apply(&pod).await.unwrap();
    namespace.kubectl(["wait", "--for=condition=Ready", "pod/app", LIMIT]).await;
    let sidecar = sidecar(&namespace, "app").await;
    for (model, state, sentence) in [
        ("quickstart", "ready", ""),
        ("wrong", "failed", "spec.model.source.sha256"),
        ("refused", "pending", "/etc/embark/models/refused/contract: has none of v1.json"),
    ] {
        until(&format!("{model} is {state}"), async || {
            let status = status(sidecar, model).await;
            let message = status["message"].as_str().unwrap_or_default();
            status["state"] == state && message.contains(sentence)
        })
        .await;
    }
    let pod = namespace.kubectl(["get", "pod", "app", "--output=json"]).await;
    let pod: Value = serde_json::from_str(&pod).unwrap();
    assert_eq!(pod["status"]["initContainerStatuses"][0]["restartCount"], 0);
    no_token(&namespace, &pod).await;

    // The model is mended, and the pod that is there serves it.
    refused["spec"]["model"]["source"] = source;
    namespace.apply(&refused).await.unwrap();
    let mut looks = 0;
    until("it is served", async || {
        // The kubelet looks again when the pod changes; else it takes its time.
        let touch = format!("example.com/touched={looks}");
        looks += 1;
        namespace.kubectl(["annotate", "--overwrite", "pod/app", &touch]).await;
        status(sidecar, "refused").await["state"] == "ready"
    })
    .await;
}

#[tokio::test]
async fn commands_of_the_document_run() {
    Release::shared().await;
    let node = Node::shared().await;
    let commands = documents::commands("docs/injection.md").into_iter();
    let commands = commands.filter(|command| command.heading == documents::IN_A_CLUSTER);
    let commands: Vec<String> = commands.map(|command| command.line).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    let mut printed = String::new();
    for command in &commands {
        printed += &release::run(node, command).await;
    }
    for part in ["\"COMPUTED\"", "embark-sidecar", "\"message\":\"ready\""] {
        assert!(printed.contains(part), "no {part} in:\n{printed}");
    }
}

/// The application has a token, as it would without us; the sidecar has none.
async fn no_token(namespace: &Namespace, pod: &Value) {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let process = process_of(uid).expect("the sidecar runs");
    let folder = format!("/proc/{process}/root{TOKEN_DIR}");
    assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 0, "{folder}");
    let listed =
        namespace.kubectl(["exec", "app", "--container=application", "--", "ls", TOKEN_DIR]);
    assert!(listed.await.contains("token"));
}

/// The admin port of a pod's sidecar.
async fn sidecar(namespace: &Namespace, pod: &str) -> SocketAddr {
    let address = namespace.kubectl(["get", "pod", pod, "--output=jsonpath={.status.podIP}"]).await;
    Node::shared().await.forward(&address, 24182).await
}

/// What a sidecar says of a model.
async fn status(sidecar: SocketAddr, model: &str) -> Value {
    let (_, status) = http_get(&sidecar.to_string(), "/status").await;
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let models = status["models"].as_array().cloned().unwrap_or_default();
    models.into_iter().find(|one| one["name"] == model).unwrap_or_default()
}

fn asking(mut pod: Value, models: &str) -> Value {
    pod["metadata"]["labels"] = json!({"embark.dev/inject": "true"});
    pod["metadata"]["annotations"] = json!({"embark.dev/models": models});
    pod
}

/// The quick start's model by another name, and without pods of its own.
fn model(name: &str) -> Value {
    let mut model = quickstart();
    model["metadata"]["name"] = name.into();
    model["spec"]["replicas"] = 0.into();
    model
}
