//! A model that is paused by an annotation.

use embark_tests::{cluster::ControlPlane, operator::Alone, sidecar::until};
use serde_json::json;

use crate::world::{MODELS, World, conditions};

const NAME: &str = "quickstart";
const PAUSED: &str = "embark.dev/paused";

#[tokio::test]
async fn paused_model_is_left_alone_until_it_goes_on() {
    let namespace = ControlPlane::shared().await.namespace("pause").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model(NAME, &json!({})).await;
    world.rest(&proxy).await;
    world
        .merge(MODELS, NAME, &json!({"metadata": {"annotations": {PAUSED: "true"}}}))
        .await
        .unwrap();
    until("the status says so", async || {
        let model = world.get(MODELS, NAME).await;
        conditions(&model).iter().any(|condition| condition["reason"] == "Paused")
    })
    .await;
    let mark = proxy.mark();
    world
        .merge(
            "services",
            NAME,
            &json!({"metadata": {"labels": {"app.kubernetes.io/name": "edited"}}}),
        )
        .await
        .unwrap();
    alone.operator.reconciles(&namespace, NAME).await;
    world.edit(NAME, &json!({"replicas": 3, "cache": {"ttl": "1h"}})).await;
    world.delete("configmaps", "quickstart-policy").await.unwrap();
    alone.operator.reconciles(&namespace, NAME).await;
    // Not even another operator's first look touches it.
    let alone = alone.restart(async {}).await;
    alone.operator.reconciles(&namespace, NAME).await;
    let writes = proxy.writes(mark, world.namespace());
    let is_telling = |resource: &str| ["embeddingmodels/status", "events"].contains(&resource);
    assert!(writes.iter().all(|write| is_telling(&write.resource)), "{writes:?}");
    world.merge(MODELS, NAME, &json!({"metadata": {"annotations": {PAUSED: null}}})).await.unwrap();
    until("it goes on", async || {
        let service = world.get("services", NAME).await;
        let deployment = world.get("deployments", NAME).await;
        service["metadata"]["labels"]["app.kubernetes.io/name"] == "embedding-model"
            && deployment["spec"]["replicas"] == 3
            && !world.get("configmaps", "quickstart-policy").await.is_null()
    })
    .await;
    world.rest(&proxy).await;
    let model = world.get(MODELS, NAME).await;
    assert!(conditions(&model).iter().all(|condition| condition["reason"] != "Paused"));
    alone.stop().await;
}
