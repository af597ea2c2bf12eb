//! The control plane itself: it comes up, says no where a cluster would, and leaves nothing.

use std::{fs, path::Path, process::Command};

use embark_tests::{cluster::ControlPlane, sidecar::until};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, api::ListParams};
use serde_json::json;

#[tokio::test]
async fn namespace_is_new_and_goes_with_its_value() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("harness").await;
    let name = namespace.name().to_owned();
    assert!(namespace.api::<ConfigMap>().await.list(&ListParams::default()).await.is_ok());
    drop(namespace);
    until("it is gone", async || {
        let get = ["get", "namespace", &name];
        plane.try_kubectl(get, "").await.errors.contains("NotFound")
    })
    .await;
}

#[tokio::test]
async fn service_account_may_not_read_secrets() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("rbac").await;
    let kubeconfig = plane.service_account_kubeconfig(namespace.name(), "default").await;
    let client = plane.client_of(&kubeconfig).await;
    let secrets: Api<Secret> = Api::namespaced(client, namespace.name());
    let error = secrets.list(&ListParams::default()).await.unwrap_err().to_string();
    let account = format!("system:serviceaccount:{}:default", namespace.name());
    assert!(error.contains(&account) && error.contains("cannot list"), "{error}");
}

#[tokio::test]
async fn user_is_who_a_kubeconfig_says() {
    let plane = ControlPlane::shared().await;
    let kubeconfig = plane.user_kubeconfig("alice", &["readers"]);
    let client = plane.client_of(&kubeconfig).await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let error = pods.list(&ListParams::default()).await.unwrap_err().to_string();
    assert!(error.contains(r#"User "alice" cannot list"#), "{error}");
}

#[tokio::test]
async fn restricted_namespace_refuses_a_privileged_pod() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.restricted_namespace("security").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"},
        "spec": {"containers": [
            {"name": "all", "image": "localhost/none", "securityContext": {"privileged": true}},
        ]},
    });
    let error = namespace.apply(&pod).await.unwrap_err();
    assert!(error.contains(r#"violates PodSecurity "restricted:latest""#), "{error}");
    assert!(plane.namespace("security").await.apply(&pod).await.is_ok());
}

#[tokio::test]
async fn evidence_of_a_failure_holds_logs_events_and_objects() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("evidence").await;
    let kept = plane.keep_evidence(Some(namespace.name()));
    let read = |name: &str| fs::read_to_string(kept.join(name)).unwrap();
    assert!(read("objects.yaml").contains("kube-root-ca.crt"), "{}", read("objects.yaml"));
    assert!(!read("kube-apiserver.log").is_empty() && !read("etcd.log").is_empty());
    assert!(kept.join("events.txt").is_file() && kept.join("describe.txt").is_file());
    fs::remove_dir_all(kept).unwrap();
}

#[tokio::test]
async fn api_server_comes_back_and_shutting_down_leaves_nothing() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("kept").await;
    plane.stop_component("kube-apiserver").await;
    assert_ne!(plane.try_kubectl(["get", "namespaces"], "").await.code, 0);
    plane.start_component("kube-apiserver").await;
    assert!(plane.kubectl(["get", "namespaces"]).await.contains(namespace.name()));
    drop(namespace);
    let folder = plane.folder().to_owned();
    assert_eq!(processes_in(&folder).len(), 4, "{:?}", processes_in(&folder));
    plane.shut_down().await;
    assert!(!folder.exists() && processes_in(&folder).is_empty());
}

#[tokio::test]
async fn cluster_ends_with_its_last_owner() {
    let plane = ControlPlane::start().await;
    let folder = plane.folder().to_owned();
    drop(plane);
    until("it is down", async || !folder.exists() && processes_in(&folder).is_empty()).await;
}

#[tokio::test]
async fn killed_guard_takes_the_cluster_with_it_and_the_next_start_deletes_the_rest() {
    let plane = ControlPlane::start().await;
    let folder = plane.folder().to_owned();
    let killed = Command::new("kill").args(["-KILL", &plane.guard_id().to_string()]).status();
    assert!(killed.unwrap().success());
    until("its processes are gone", async || processes_in(&folder).is_empty()).await;
    assert!(folder.join("certificates/ca.key").exists());
    let next = ControlPlane::start().await;
    assert!(!folder.exists());
    next.shut_down().await;
}

/// The processes that were told of a cluster's folder.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        // A process may end meanwhile.
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        let words = format!("{}/", String::from_utf8_lossy(&words).replace('\0', "/ "));
        if words.contains(&folder) {
            processes.push(words);
        }
    }
    processes
}
