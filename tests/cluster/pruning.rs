//! What a model has no more use for is deleted, and nothing sooner.

use embark_tests::{cluster::Namespace, sidecar::until};
use serde_json::json;

use super::operator::{condition, quickstart, settled, start};

/// Changes of what rolls pods: more than revisions are kept.
const CHANGES: usize = 5;
/// The present revision, and those that can be rolled back to.
const REVISIONS: usize = 3;

#[tokio::test]
async fn account_and_contracts_that_no_revision_needs_are_deleted() {
    let (namespace, alone) = start("pruned").await;
    // Without pods: none would ever come up here, and those of the revision before would stay.
    namespace.apply(&quickstart(&json!({"replicas": 0}))).await.unwrap();
    settled(&namespace).await;
    for change in 1..=CHANGES {
        let patch = json!({
            "replicas": 0,
            "batching": {"maxItems": change},
            "pod": {"serviceAccountName": "default"},
        });
        namespace.apply(&quickstart(&patch)).await.unwrap();
        until("the pods follow", async || {
            let progressing = condition(&namespace, "Progressing").await;
            progressing["reason"] == "RolledOut"
                && progressing["observedGeneration"].as_u64() == Some(change as u64 + 1)
        })
        .await;
    }
    until("contracts without a revision are gone", async || {
        let contracts = names(&namespace, "configmaps", "embark.dev/role=pool-contract").await;
        (1..=REVISIONS).contains(&contracts)
    })
    .await;
    let ours = "app.kubernetes.io/instance=quickstart";
    until("its own account is gone", async || {
        names(&namespace, "serviceaccounts", ours).await == 0
    })
    .await;
    alone.stop().await;
}

async fn names(namespace: &Namespace, kind: &str, selector: &str) -> usize {
    let selector = format!("--selector={selector}");
    namespace.kubectl(["get", kind, &selector, "--output=name"]).await.lines().count()
}
