//! PodMonitors, in a cluster that comes to have the kind and loses it again.

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    sidecar::until,
};
use serde_json::{Value, json};

use crate::operator::{apply_quickstart, get, patch, settled, start};

const MONITOR: &str = "podmonitors.monitoring.coreos.com/quickstart";

/// The kind's definition, as far as it matters here.
pub(crate) struct Kind;

#[tokio::test]
async fn pod_monitor_comes_with_its_kind_and_goes_with_its_model() {
    let (namespace, alone) = start("monitors").await;
    apply_quickstart(&namespace).await;
    settled(&namespace).await;
    assert!(!alone.operator.log().contains("PodMonitor"), "{}", alone.operator.log());
    // The operator goes on running, and nobody touches the model.
    let kind = Kind::define(namespace.plane()).await;
    until("there is a PodMonitor", async || !monitor(&namespace).await.is_null()).await;
    let made = monitor(&namespace).await;
    assert_eq!(
        made["spec"],
        json!({
            "podMetricsEndpoints": [{"path": "/metrics", "port": "admin"}],
            "selector": {"matchLabels": {
                "app.kubernetes.io/instance": "quickstart",
                "app.kubernetes.io/name": "embedding-model",
            }},
        })
    );
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "EmbeddingModel");
    let edit = json!([
        {"op": "add", "path": "/spec/podMetricsEndpoints/-", "value": {"port": "grpc"}},
        {"op": "replace", "path": "/spec/podMetricsEndpoints/0/path", "value": "/"},
    ]);
    patch(&namespace, MONITOR, "json", &edit).await;
    until("it is as it was", async || monitor(&namespace).await["spec"] == made["spec"]).await;
    namespace.kubectl(["delete", MONITOR]).await;
    until("it is made again", async || !monitor(&namespace).await.is_null()).await;

    kind.remove(namespace.plane()).await;
    until("the operator goes on without the kind", async || {
        alone.operator.reconciles(&namespace, "quickstart").await;
        reason(&namespace).await == "RollingOut"
    })
    .await;
    let kind = Kind::define(namespace.plane()).await;
    until("it is there again", async || !monitor(&namespace).await.is_null()).await;
    namespace.kubectl(["delete", "embm/quickstart"]).await;
    until("it is gone with the model", async || monitor(&namespace).await.is_null()).await;
    kind.remove(namespace.plane()).await;
    alone.stop().await;
}

// === impl Kind ===

impl Kind {
    /// Brings the kind to a cluster. Whoever does it has the cluster's one operator.
    pub(crate) async fn define(plane: &ControlPlane) -> Kind {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "podmonitors.monitoring.coreos.com"},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {
                    "kind": "PodMonitor", "listKind": "PodMonitorList",
                    "plural": "podmonitors", "singular": "podmonitor",
                },
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    }},
                }],
            },
        });
        let apply = ["apply", "--filename", "-"];
        let applied = plane.try_kubectl(apply, &definition.to_string()).await;
        assert_eq!(applied.code, 0, "{}", applied.errors);
        until("the kind is served", async || {
            plane.try_kubectl(["get", "podmonitors"], "").await.code == 0
        })
        .await;
        Kind
    }

    /// Takes it away, with every object of it.
    pub(crate) async fn remove(self, plane: &ControlPlane) {
        plane.kubectl(["delete", "crd/podmonitors.monitoring.coreos.com"]).await;
    }
}

async fn monitor(namespace: &Namespace) -> Value {
    get(namespace, MONITOR).await
}

async fn reason(namespace: &Namespace) -> String {
    let ready = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].reason}";
    namespace.kubectl(["get", "embm/quickstart", ready]).await
}
