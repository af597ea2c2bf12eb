//! A webhook of somebody else's, which is called after ours and changes the pod once more, as meshes do.

use std::fs;

use axum::{Json, Router, routing::post};
use embark_tests::{
    authority::{Authority, Subject},
    cluster::{ControlPlane, Namespace},
    injection::{Injection, asking},
    sidecar::until,
};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::Routes,
    transport::{Identity, Server, ServerTlsConfig},
};

use crate::webhook::apply_model;

#[tokio::test]
async fn pod_that_another_webhook_changes_after_ours_has_one_sidecar_and_all_know_where_it_is() {
    let namespace = ControlPlane::shared().await.restricted_namespace("beside").await;
    let injection = Injection::start(&namespace, &[]).await;
    apply_model(&namespace, "quickstart").await;
    let other = other_webhook(&namespace).await;
    let operator = &injection.alone.operator;
    let answers = async || operator.metric("embark_operator_webhook_seconds_count").await;
    let mut pods = 0;
    until("both are called", async || {
        pods += 1;
        let name = format!("early-{pods}");
        let made = namespace.apply(&asking(&name, "quickstart")).await;
        made.is_ok() && pod(&namespace, &name).await["spec"]["containers"][1]["name"] == "mesh"
    })
    .await;
    let before = answers().await;
    namespace.apply(&asking("asks", "quickstart")).await.unwrap();
    // Once more, for what the other has changed.
    assert_eq!(answers().await - before, 2.0);
    let pod = pod(&namespace, "asks").await;
    let names = |list: &Value| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&pod["spec"]["initContainers"]), ["embark-sidecar"]);
    assert_eq!(names(&pod["spec"]["containers"]), ["application", "mesh"]);
    for container in pod["spec"]["containers"].as_array().unwrap() {
        assert_eq!(names(&container["env"]), ["EMBARK_ADDRESS", "EMBARK_SOCKET"], "{container}");
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let sockets = mounts.filter(|mount| mount["mountPath"] == "/run/embark").count();
        assert_eq!(sockets, 1, "{container}");
    }
    let mut volumes = names(&pod["spec"]["volumes"]);
    let count = volumes.len();
    volumes.sort();
    volumes.dedup();
    assert_eq!(volumes.len(), count, "{pod}");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["mesh.example.com/status"], "added");
    assert_eq!(annotations["embark.dev/injected"], "quickstart");
    namespace.kubectl(["delete", "mutatingwebhookconfiguration", &other]).await;
    injection.stop(&namespace).await;
}

/// Starts it, and gives the name of its configuration: webhooks are called in the order of those.
async fn other_webhook(namespace: &Namespace) -> String {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca").unwrap();
    let hosts = &["localhost"];
    authority.issue(Subject { name: "mesh", common_name: "mesh", group: None, hosts }).unwrap();
    let read = |file: &str| fs::read(folder.path().join(file)).unwrap();
    let tls =
        ServerTlsConfig::new().identity(Identity::from_pem(read("mesh.crt"), read("mesh.key")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = Routes::from(Router::new().route("/", post(answer)));
    let mut server = Server::builder().accept_http1(true).tls_config(tls).unwrap();
    let serving = server.add_routes(routes);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let name = format!("zz-{}", namespace.name());
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": "mesh.example.com",
            "clientConfig": {
                "url": format!("https://localhost:{port}/"),
                "caBundle": ByteString(read("ca.crt")),
            },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"],
            }],
            "namespaceSelector":
                {"matchLabels": {"kubernetes.io/metadata.name": namespace.name()}},
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
        }],
    });
    namespace.apply(&configuration).await.unwrap();
    name
}

/// Adds a container to a pod that has not got it.
async fn answer(Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let mut containers = request["object"]["spec"]["containers"].as_array().unwrap().iter();
    let patch = match containers.any(|container| container["name"] == "mesh") {
        true => json!([]),
        false => json!([
            {"op": "add", "path": "/spec/containers/-", "value": {
                "name": "mesh", "image": "localhost/mesh",
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
            }},
            {"op": "add", "path": "/metadata/annotations/mesh.example.com~1status", "value": "added"},
        ]),
    };
    let response = json!({
        "uid": request["uid"], "allowed": true, "patchType": "JSONPatch",
        "patch": ByteString(patch.to_string().into_bytes()),
    });
    Json(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    }))
}

async fn pod(namespace: &Namespace, name: &str) -> Value {
    let pod = namespace.kubectl(["get", "pod", name, "--output=json"]).await;
    serde_json::from_str(&pod).unwrap()
}
