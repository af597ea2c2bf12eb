//! Who decides on the number of pods: the autoscaler, as long as there is one.

use std::sync::Arc;

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    operator::Alone,
    sidecar::until,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{WatchEvent, WatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use crate::world::World;

const NAME: &str = "quickstart";

/// Every number of replicas that the Deployment was ever told, in order.
#[derive(Clone)]
struct Replicas(Arc<Mutex<Vec<i32>>>);

// === impl Replicas ===

impl Replicas {
    /// Follows every version of the Deployment, which is there.
    async fn follow(namespace: &Namespace) -> Replicas {
        let api = namespace.api::<Deployment>().await;
        let now = api.get(NAME).await.unwrap();
        let version = now.metadata.resource_version.unwrap();
        let seen = Replicas(Arc::new(Mutex::new(vec![now.spec.unwrap().replicas.unwrap()])));
        let numbers = seen.clone();
        tokio::spawn(async move {
            let mine = WatchParams::default().fields(&format!("metadata.name={NAME}"));
            let mut versions = Box::pin(api.watch(&mine, &version).await.unwrap());
            while let Some(Ok(event)) = versions.next().await {
                if let WatchEvent::Modified(deployment) = event {
                    let replicas = deployment.spec.unwrap().replicas.unwrap();
                    let mut numbers = numbers.0.lock();
                    if numbers.last() != Some(&replicas) {
                        numbers.push(replicas);
                    }
                }
            }
        });
        seen
    }

    /// Waits until the last is this, and gives all since the last time, the one before them included.
    async fn come_to(&self, last: i32) -> Vec<i32> {
        until(&format!("replicas are {last}"), async || self.0.lock().last() == Some(&last)).await;
        let mut numbers = self.0.lock();
        std::mem::replace(&mut *numbers, vec![last])
    }
}

#[tokio::test]
async fn replicas_never_dip_while_autoscaling_goes_off_and_on_under_load() {
    let namespace = ControlPlane::shared().await.namespace("scaling").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    let on = json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 6}});
    world.model(NAME, &on).await;
    world.rest(&proxy).await;
    let replicas = Replicas::follow(&namespace).await;
    assert_eq!(replicas.come_to(2).await, [2]);
    // Load comes, and everything is changed meanwhile that is not the autoscaler's.
    scale(&world, 5).await;
    for hours in 1..4 {
        world.edit(NAME, &json!({"cache": {"ttl": format!("{hours}h")}, "replicas": hours})).await;
        let memory = format!("{}Mi", 64 * hours);
        world.edit(NAME, &json!({"cache": {"memory": {"sizeLimit": memory}}})).await;
        world.edit(NAME, &json!({"autoscaling": {"maxReplicas": 6 + hours}})).await;
    }
    world.rest(&proxy).await;
    let alone = alone.restart(async {}).await;
    world.rest(&proxy).await;
    assert_eq!(replicas.come_to(5).await, [2, 5]);
    // Off: they are the spec's from then on.
    world.edit(NAME, &json!({"autoscaling": null, "replicas": 4})).await;
    world.rest(&proxy).await;
    assert_eq!(replicas.come_to(4).await, [5, 4]);
    assert_eq!(world.get("horizontalpodautoscalers", NAME).await, Value::Null);
    // On: they stay what they are until the autoscaler says otherwise.
    world.edit(NAME, &on).await;
    world.rest(&proxy).await;
    assert_eq!(replicas.come_to(4).await, [4]);
    scale(&world, 6).await;
    world.rest(&proxy).await;
    // Off and on and off in one breath.
    world.edit(NAME, &json!({"autoscaling": null, "replicas": 3})).await;
    world.edit(NAME, &on).await;
    world.edit(NAME, &json!({"autoscaling": null, "replicas": 3})).await;
    world.rest(&proxy).await;
    let numbers = replicas.come_to(3).await;
    assert!(numbers.iter().all(|number| *number >= 3), "{numbers:?}");
    alone.stop().await;
}

#[tokio::test]
async fn replicas_that_somebody_edits_are_put_back_unless_an_autoscaler_has_them() {
    let namespace = ControlPlane::shared().await.namespace("replicas").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model(NAME, &json!({"replicas": 2})).await;
    world.rest(&proxy).await;
    let replicas = Replicas::follow(&namespace).await;
    let seven = json!({"spec": {"replicas": 7}});
    world.merge("deployments", NAME, &seven).await.unwrap();
    replicas.come_to(2).await;
    world.edit(NAME, &json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 8}})).await;
    world.rest(&proxy).await;
    world.merge("deployments", NAME, &seven).await.unwrap();
    world.rest(&proxy).await;
    assert_eq!(replicas.come_to(7).await.last(), Some(&7));
    alone.stop().await;
}

#[tokio::test]
async fn autoscaling_that_is_switched_on_at_no_replicas_begins_with_the_least() {
    let namespace = ControlPlane::shared().await.namespace("from-zero").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model(NAME, &json!({"replicas": 0})).await;
    world.rest(&proxy).await;
    let replicas = Replicas::follow(&namespace).await;
    assert_eq!(replicas.come_to(0).await, [0]);
    // Kubernetes' autoscaler leaves a Deployment alone that has none.
    world.edit(NAME, &json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 4}})).await;
    assert_eq!(replicas.come_to(2).await, [0, 2]);
    world.rest(&proxy).await;
    assert_eq!(replicas.come_to(2).await, [2]);
    alone.stop().await;
}

/// As the autoscaler's controller does it.
async fn scale(world: &World, replicas: i32) {
    let wanted = json!({"spec": {"replicas": replicas}});
    world.merge("deployments/scale", NAME, &wanted).await.unwrap();
}
