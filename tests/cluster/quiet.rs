//! What the operator asks and writes when there is nothing to do.

use embark_tests::{
    api_proxy::Verb,
    cluster::ControlPlane,
    operator::{Alone, Operator},
    sidecar::until,
};
use serde_json::{Value, json};

use crate::world::{World, lines};

const MODELS: usize = 3;
/// Renewals of the Lease while the operator is watched: 2 s each.
const RENEWALS: usize = 5;

#[tokio::test]
async fn second_reconcile_and_a_restart_write_nothing() {
    // Of its own: every reconcile that is counted is of one of these models.
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("again").await;
    let (operator, proxy) = Operator::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    let scaled = json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}});
    let refused = json!({"model": {"source": {"uri": "file://model.onnx"}}});
    let models = [("plain", json!({})), ("scaled", scaled), ("refused", refused)];
    for (name, spec) in &models {
        world.model(name, spec).await;
    }
    world.rest(&proxy).await;
    pods_are_told(&world, 2).await;
    let (mark, before) = (proxy.mark(), operator.all_reconciles().await);
    for (name, _) in &models {
        let touched = json!({"metadata": {"annotations": {"example.com/touched": "again"}}});
        world.merge(crate::world::MODELS, name, &touched).await.unwrap();
    }
    let expected = before + 3.0;
    until("each is reconciled", async || operator.all_reconciles().await >= expected).await;
    let again = operator.another_through(&proxy, "again").await;
    operator.stop().await;
    until("each is reconciled again", async || again.all_reconciles().await >= 3.0).await;
    let writes = proxy.writes(mark, world.namespace());
    assert!(writes.is_empty(), "{}", lines(&writes));
    again.stop().await;
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
    pods_are_told(&world, MODELS).await;
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

/// Waits until the status of so many models tells of a pod of the newest revision. Kubernetes makes them in its own time.
async fn pods_are_told(world: &World, models: usize) {
    until("each pod is told of", async || {
        let told = |model: &Value| {
            let status = &model["status"];
            let is_rolled_out = |condition: &Value| condition["reason"] == "RolledOut";
            let is_rolled_out =
                status["conditions"].as_array().into_iter().flatten().any(is_rolled_out);
            status["replicas"] == 1 && status["policy"]["podsTotal"] == 1 && is_rolled_out
        };
        world.list(crate::world::MODELS).await.iter().filter(|model| told(model)).count() == models
    })
    .await;
}
