//! What a model has of its user, on pods that run: files behind credentials and on a claim, TLS and a token at its port; and
//! what people see while some of it is missing.

use std::{fs, path::Path};

use embark_tests::{
    authority::{Authority, Subject},
    cluster::Namespace,
    image, programs,
    sidecar::until,
};
use serde_json::{Value, json};

use super::quickstart::{application, namespace, quickstart, ready};

/// How long a pod may take to end, on a busy machine.
const LIMIT: &str = "--timeout=180s";

#[tokio::test]
async fn model_with_secrets_a_claim_and_a_secured_port_serves_who_may_call() {
    let namespace = namespace("mounts").await;
    let files = programs::root().join("examples/models/tiny-static-minilm");
    serve_tokenizer(&namespace, &files).await;
    let server = format!("http://files.{}.svc:8080", namespace.name());
    let mut model = quickstart();
    model["spec"]["model"]["source"]["uri"] = "pvc://models/model.onnx".into();
    let tokenizer = &mut model["spec"]["input"]["text"]["tokenizer"];
    tokenizer["uri"] = format!("{server}/tokenizer.json").into();
    tokenizer["secretRef"] = json!({"name": "credentials"});
    model["spec"]["endpoint"] =
        json!({"tls": {"secretName": "certificate"}, "tokenSecretRef": {"name": "tokens"}});
    namespace.apply(&model).await.unwrap();
    told(&namespace, "persistentvolumeclaim \"models\" not found").await;

    let volume = claim(&namespace, &files).await;
    told(&namespace, "--tls-cert: /etc/embark/endpoint/tls/tls.crt").await;

    let folder = tempfile::tempdir().unwrap();
    secure(&namespace, folder.path()).await;
    let login = ["--from-literal=username=reader", "--from-literal=password=hush"];
    create(&namespace, &["secret", "generic", "credentials", login[0], login[1]]).await;
    ready(&namespace).await;

    let known = ["--token-file=/client/token"];
    let log = call(&namespace, ("known", "Succeeded"), &known).await;
    let answer: Value = serde_json::from_str(log.trim()).unwrap();
    assert_eq!(answer["vector"].as_array().unwrap().len(), 128, "{log}");
    let log = call(&namespace, ("unknown", "Failed"), &[]).await;
    assert!(log.contains("token"), "{log}");
    let service = ["get", "service/quickstart", "--output=jsonpath={.spec.ports[0].appProtocol}"];
    assert_eq!(namespace.kubectl(service).await, "https");
    namespace.kubectl(["delete", "embm/quickstart"]).await;
    namespace.kubectl(["delete", "persistentvolume", &volume, "--wait=false"]).await;
}

/// A server in the cluster that gives the tokenizer to who has a user's password.
async fn serve_tokenizer(namespace: &Namespace, files: &Path) {
    let tokenizer = format!("--from-file={}", files.join("tokenizer.json").display());
    let login = "--from-literal=httpd.conf=/:reader:hush";
    create(namespace, &["configmap", "files", &tokenizer, login]).await;
    let serve = "busybox httpd -f -p 8080 -h /files -c /files/httpd.conf";
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "files", "labels": {"name": "files"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "volumes": [{"name": "files", "configMap": {"name": "files"}}],
                "containers": [{
                    "name": "files", "image": image::CLIENT, "args": ["-c", serve],
                    "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        }))
        .await
        .unwrap();
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "files"},
            "spec": {"selector": {"name": "files"}, "ports": [{"port": 8080}]},
        }))
        .await
        .unwrap();
}

/// A claim on a volume that is a folder of the node's; the volume's name.
async fn claim(namespace: &Namespace, files: &Path) -> String {
    let volume = format!("models-{}", namespace.name());
    let size = json!({"storage": "64Mi"});
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
            "spec": {
                "capacity": size, "accessModes": ["ReadOnlyMany"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": files},
                "claimRef": {"namespace": namespace.name(), "name": "models"},
            },
        }))
        .await
        .unwrap();
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"},
            "spec": {
                "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": volume,
                "resources": {"requests": size},
            },
        }))
        .await
        .unwrap();
    volume
}

/// The certificate of the model's port and the token that it asks for; and what callers need of both.
async fn secure(namespace: &Namespace, folder: &Path) {
    let authority = Authority::new(folder, "ca").unwrap();
    let host = format!("quickstart.{}.svc", namespace.name());
    let subject =
        Subject { name: "server", common_name: "quickstart", group: None, hosts: &[&host] };
    authority.issue(subject).unwrap();
    let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
    let (certificate, key) = (file("cert", "server.crt"), file("key", "server.key"));
    create(namespace, &["secret", "tls", "certificate", &certificate, &key]).await;
    fs::write(folder.join("token"), "open-sesame-open-sesame\n").unwrap();
    let (token, ca) = (file("from-file", "token"), file("from-file", "ca.crt"));
    create(namespace, &["secret", "generic", "tokens", &token]).await;
    create(namespace, &["secret", "generic", "client", &token, &ca]).await;
}

async fn create(namespace: &Namespace, what: &[&str]) {
    namespace.kubectl(["create"].iter().chain(what)).await;
}

/// Waits until people read this of the model.
async fn told(namespace: &Namespace, words: &str) {
    until(&format!("it is told: {words}"), async || {
        let message = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].message}";
        namespace.kubectl(["get", "embm/quickstart", message]).await.contains(words)
    })
    .await;
}

/// What an application's pod prints that asks for a vector over TLS, once it has ended so.
async fn call(namespace: &Namespace, (name, phase): (&str, &str), more: &[&str]) -> String {
    let address = format!("https://quickstart.{}.svc:8081", namespace.name());
    let mut arguments = vec!["embed", "--address", &address, "--tls-ca=/client/ca.crt"];
    arguments.extend(more);
    arguments.extend(["--model=quickstart", "The weather is lovely today."]);
    let mut pod = application(name, &arguments);
    pod["spec"]["volumes"] = json!([{"name": "client", "secret": {"secretName": "client"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "client", "mountPath": "/client"}]);
    namespace.apply(&pod).await.unwrap();
    let phase = format!("--for=jsonpath={{.status.phase}}={phase}");
    namespace.kubectl(["wait", &phase, &format!("pod/{name}"), LIMIT]).await;
    namespace.kubectl(["logs", name]).await
}
