//! What the operator asks and writes when there is nothing to do.

use embark_tests::{api_proxy::Verb, cluster::ControlPlane, operator::Alone, sidecar::until};
use serde_json::json;

use crate::world::{STATUS, World, lines};

const MODELS: usize = 3;
/// Renewals of the Lease while the operator is watched: 2 s each.
const RENEWALS: usize = 5;

#[tokio::test]
async fn second_reconcile_and_a_restart_write_nothing() {
    let namespace = ControlPlane::shared().await.namespace("again").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model("plain", &json!({})).await;
    world.model("scaled", &json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})).await;
    world.model("refused", &json!({"model": {"source": {"uri": "file://model.onnx"}}})).await;
    world.rest(&proxy).await;
    let mark = proxy.mark();
    let alone = alone.restart(async {}).await;
    until("each is reconciled", async || alone.operator.reconciles().await >= 3.0).await;
    // A spec that means the same: that it was seen shows in its status, and in nothing else.
    for model in ["plain", "scaled", "refused"] {
        world.nudge(model).await;
    }
    world.told().await;
    let writes = proxy.writes(mark, world.namespace());
    assert_eq!(writes.len(), 3, "{}", lines(&writes));
    assert!(writes.iter().all(|write| write.is(Verb::Patch, STATUS)), "{}", lines(&writes));
    alone.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_and_only_the_lease_written_while_nothing_changes() {
    let namespace = ControlPlane::shared().await.namespace("idle").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    for model in 0..MODELS {
        world.model(&format!("model-{model}"), &json!({})).await;
    }
    world.rest(&proxy).await;
    let mark = proxy.mark();
    until("the Lease was renewed often enough", async || {
        proxy.since(mark, |call| call.is(Verb::Update, "leases") && call.code == 200).len()
            >= RENEWALS
    })
    .await;
    // Models of other tests have other namespaces; what is asked of all of them has none.
    let asked = proxy.since(mark, |call| {
        let is_ours = call.namespace == world.namespace() && call.resource != "leases";
        is_ours || call.namespace.is_empty() && call.verb != Verb::Watch
    });
    assert!(asked.is_empty(), "{}", lines(&asked));
    alone.stop().await;
}
