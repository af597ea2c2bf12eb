//! A model that is deleted and made anew while the children of the one before it are still there.

use embark_tests::{cluster::ControlPlane, operator::Operator, sidecar::until};
use serde_json::{Value, json};

use crate::world::{MODELS, World, name};

const NAME: &str = "quickstart";

#[tokio::test]
async fn model_that_is_made_anew_at_once_needs_no_garbage_collector() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("anew").await;
    let world = World::of(&namespace).await;
    let (operator, proxy) = Operator::start_through_proxy(&namespace).await;
    let autoscaling = json!({"minReplicas": 1, "maxReplicas": 3});
    world.model(NAME, &json!({"autoscaling": autoscaling})).await;
    world.rest(&proxy).await;
    let before = children(&world).await;
    // Nobody takes away what has lost its owner, which may take a busy cluster minutes.
    plane.stop_component("kube-controller-manager").await;
    world.delete(MODELS, NAME).await.unwrap();
    until("it is gone", async || world.get(MODELS, NAME).await.is_null()).await;
    world.model(NAME, &json!({"autoscaling": autoscaling})).await;
    let uid = world.get(MODELS, NAME).await["metadata"]["uid"].clone();
    until("every child is the new one's", async || {
        let now = children(&world).await;
        let is_its = |child: &Value| {
            child["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| owners.len() == 1 && owners[0]["uid"] == uid)
        };
        names(&now) == names(&before) && now.iter().all(|(_, child)| is_its(child))
    })
    .await;
    until("it is said to be applied", async || {
        world.told().await;
        world.condition(NAME, "Ready").await["reason"] == "RollingOut"
    })
    .await;
    world.rest(&proxy).await;
    // What is there now stays when the garbage collector comes.
    let after = children(&world).await;
    plane.start_component("kube-controller-manager").await;
    until("its pod is made", async || {
        world.get("deployments", NAME).await["status"]["replicas"] == 1
    })
    .await;
    let uids = |children: &[(&'static str, Value)]| -> Vec<Value> {
        children.iter().map(|(_, child)| child["metadata"]["uid"].clone()).collect()
    };
    assert_eq!(uids(&children(&world).await), uids(&after));
    operator.stop().await;
}

/// The children that are not on their way out.
async fn children(world: &World) -> Vec<(&'static str, Value)> {
    let mut children = world.children().await;
    children.retain(|(_, child)| child["metadata"]["deletionTimestamp"].is_null());
    children
}

fn names(children: &[(&'static str, Value)]) -> Vec<String> {
    children.iter().map(|(kind, child)| format!("{kind}/{}", name(child))).collect()
}
