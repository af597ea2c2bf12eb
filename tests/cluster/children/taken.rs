//! Objects of somebody else that have a child's name: each is left as it is, and said.

use embark_tests::{cluster::Namespace, sidecar::until};
use serde_json::{Value, json};

use super::monitors::Kind;
use crate::operator::{condition, get, quickstart, settled, start};

#[tokio::test]
async fn child_of_no_kind_is_taken_from_somebody_else() {
    let (namespace, alone) = start("taken-kinds").await;
    let kind = Kind::define(namespace.plane()).await;
    nothing_is_taken(&namespace).await;
    kind.remove(namespace.plane()).await;
    alone.stop().await;
}

/// Puts something of somebody else's where each child would be, and takes it away again.
pub(crate) async fn nothing_is_taken(namespace: &Namespace) {
    let asked = quickstart(&json!({
        "autoscaling": {"maxReplicas": 3},
        "networkPolicy": {"from": []},
    }));
    // The contract of a pool is named by its hash: the operator says by which.
    namespace.apply(&asked).await.unwrap();
    settled(namespace).await;
    let contract = "--selector=embark.dev/role=pool-contract,app.kubernetes.io/instance=quickstart";
    let contract = namespace.kubectl(["get", "configmaps", contract, "--output=name"]).await;
    namespace.kubectl(["delete", "embm/quickstart"]).await;
    let children = children(contract.trim().trim_start_matches("configmap/"));
    for child in &children {
        until("its place is free", async || get(namespace, &object(child)).await.is_null()).await;
        namespace.apply(child).await.unwrap();
    }
    namespace.apply(&asked).await.unwrap();
    for child in &children {
        let object = object(child);
        let sentence = format!(
            "{} is there already and belongs to nobody known: delete it, or name the model otherwise",
            object.replace('/', " ")
        );
        until("it is said", async || {
            let ready = condition(namespace, "Ready").await;
            ready["reason"] == "NameTaken" && ready["message"] == sentence.as_str()
        })
        .await;
        let found = get(namespace, &object).await;
        assert_eq!(found["metadata"]["labels"], json!({"team": "others"}), "{found}");
        assert!(found["metadata"].get("ownerReferences").is_none(), "{found}");
        namespace.kubectl(["delete", &object]).await;
        // It would be tried again by itself, with longer and longer waits.
        let touched = format!("example.com/touched={}", found["metadata"]["uid"]);
        namespace.kubectl(["annotate", "embm/quickstart", "--overwrite", &touched]).await;
        until("it is made", async || is_ours(namespace, &object).await).await;
    }
    until("nothing is in the way any more", async || {
        condition(namespace, "Ready").await["reason"] == "RollingOut"
    })
    .await;
}

/// An object of each name that the quick start's children have, in the order in which they are applied.
fn children(contract: &str) -> Vec<Value> {
    let child = |version: &str, kind: &str, name: &str, spec: Value| {
        let mut child = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {"name": name, "labels": {"team": "others"}},
        });
        if !spec.is_null() {
            child["spec"] = spec;
        }
        child
    };
    let labels = json!({"team": "others"});
    let container = json!([{"name": "all", "image": "localhost/none"}]);
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": container}});
    let deployment = json!({
        "replicas": 0, "selector": {"matchLabels": labels}, "template": template,
    });
    let scale = json!({
        "maxReplicas": 1,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "others"},
    });
    let ports = json!({"ports": [{"port": 1}]});
    vec![
        child("v1", "ServiceAccount", "quickstart", Value::Null),
        child("v1", "ConfigMap", contract, Value::Null),
        child("v1", "ConfigMap", "quickstart-contract", Value::Null),
        child("v1", "ConfigMap", "quickstart-policy", Value::Null),
        child("v1", "Service", "quickstart", ports.clone()),
        child("v1", "Service", "quickstart-pods", ports),
        child("networking.k8s.io/v1", "NetworkPolicy", "quickstart", json!({"podSelector": {}})),
        child("apps/v1", "Deployment", "quickstart", deployment),
        child("autoscaling/v2", "HorizontalPodAutoscaler", "quickstart", scale),
        child("policy/v1", "PodDisruptionBudget", "quickstart", json!({"minAvailable": 0})),
        child("monitoring.coreos.com/v1", "PodMonitor", "quickstart", json!({})),
    ]
}

async fn is_ours(namespace: &Namespace, object: &str) -> bool {
    let found = get(namespace, object).await;
    found["metadata"]["ownerReferences"][0]["kind"] == "EmbeddingModel"
}

/// As kubectl calls it.
fn object(child: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    format!("{}/{}", text(&child["kind"]), text(&child["metadata"]["name"]))
}
