//! Contracts: those that nothing refers to go, and what a later operator wrote beside ours.

use std::collections::BTreeSet;

use embark_tests::{cluster::Namespace, sidecar::until};
use serde_json::{Value, json};

use crate::operator::{apply_quickstart, get, quickstart, settled, start};

/// Revisions of a Deployment that are kept beside the present one.
const KEPT: usize = 2;

#[tokio::test]
async fn contract_goes_with_the_last_revision_that_mounts_it_and_not_before() {
    let (namespace, alone) = start("contracts").await;
    // Without pods a roll-out is over at once; there is no kubelet here that would run any.
    for megabytes in 0..5 {
        change(&namespace, 0, megabytes).await;
        assert!(contracts(&namespace).await.is_superset(&mounted(&namespace).await));
    }
    until("those of the revisions are left", async || {
        let contracts = contracts(&namespace).await;
        contracts.len() == KEPT + 1 && contracts == mounted(&namespace).await
    })
    .await;
    alone.stop().await;
}

#[tokio::test]
async fn contract_of_a_pod_stays_while_the_next_ones_do_not_come_up() {
    let (namespace, alone) = start("stuck").await;
    for megabytes in 0..5 {
        change(&namespace, 1, megabytes).await;
    }
    until("each has a pod or had one", async || mounted(&namespace).await.len() == 5).await;
    alone.operator.reconciles(&namespace, "quickstart").await;
    settled(&namespace).await;
    assert_eq!(contracts(&namespace).await, mounted(&namespace).await);
    alone.stop().await;
}

#[tokio::test]
async fn file_of_a_later_operator_goes_rather_than_grow_stale_and_others_keys_stay() {
    let (namespace, alone) = start("later").await;
    apply_quickstart(&namespace).await;
    settled(&namespace).await;
    for name in ["quickstart-contract", "quickstart-policy"] {
        let object = format!("configmap/{name}");
        let made = get(&namespace, &object).await;
        let ours = made["data"]["v1.json"].clone();
        assert!(ours.is_string());
        // As an operator would write it that knows another version, and then is rolled back to this one.
        let later = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "annotations": {"embark.dev/applied-hash": "later"},
                "labels": made["metadata"]["labels"],
                "ownerReferences": made["metadata"]["ownerReferences"],
            },
            "data": {"v1.json": "{\"later\": true}", "v2.json": "{}"},
        });
        let apply = [
            "--namespace",
            namespace.name(),
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=embark-operator",
            "--filename",
            "-",
        ];
        let patch = ["patch", &object, "--field-manager=others", "--type=merge"];
        let note = json!({"data": {"note": "kept"}}).to_string();
        namespace.kubectl(patch.iter().copied().chain(["--patch", &note])).await;
        let applied = namespace.plane().try_kubectl(apply, &later.to_string()).await;
        assert_eq!(applied.code, 0, "{}", applied.errors);
        until("what is there is this operator's", async || {
            let data = get(&namespace, &object).await["data"].clone();
            data == json!({"v1.json": ours, "note": "kept"})
        })
        .await;
    }
    alone.stop().await;
}

/// Asks for another contract, and waits until the Deployment has a revision of it.
async fn change(namespace: &Namespace, replicas: usize, megabytes: usize) {
    let cache = json!({"memory": {"sizeLimit": format!("{}Mi", 64 + megabytes)}});
    let model = quickstart(&json!({"replicas": replicas, "cache": cache}));
    namespace.apply(&model).await.unwrap();
    settled(namespace).await;
    until("the Deployment has a revision of it", async || {
        let deployment = get(namespace, "deployment/quickstart").await;
        let current = contract_of(&deployment["spec"]["template"]);
        let is_seen =
            deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"];
        is_seen
            && current.is_some_and(|current| !current.is_empty())
            && mounted(namespace)
                .await
                .contains(&contract_of(&deployment["spec"]["template"]).unwrap())
    })
    .await;
}

/// The contracts of the pool.
async fn contracts(namespace: &Namespace) -> BTreeSet<String> {
    let list = items(namespace, "configmaps").await;
    let role = |map: &Value| map["metadata"]["labels"]["embark.dev/role"] == "pool-contract";
    list.iter().filter(|map| role(map)).map(|map| text(&map["metadata"]["name"])).collect()
}

/// Those that a revision mounts.
async fn mounted(namespace: &Namespace) -> BTreeSet<String> {
    let list = items(namespace, "replicasets").await;
    list.iter().filter_map(|revision| contract_of(&revision["spec"]["template"])).collect()
}

async fn items(namespace: &Namespace, kind: &str) -> Vec<Value> {
    let list = namespace.kubectl(["get", kind, "--output=json"]).await;
    let mut list: Value = serde_json::from_str(&list).unwrap();
    serde_json::from_value(list["items"].take()).unwrap()
}

fn contract_of(template: &Value) -> Option<String> {
    let mut volumes = template["spec"]["volumes"].as_array()?.iter();
    let contract = volumes.find(|volume| volume["name"] == "contract")?;
    Some(text(&contract["configMap"]["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
