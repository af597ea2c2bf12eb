//! What becomes of edits of a model's children: ours is put back, what others add stays.

use embark_tests::{cluster::ControlPlane, operator::Alone, sidecar::until};
use serde_json::{Value, json};

use crate::world::{INSTANCE, SOMEBODY, World, name};

const NAME: &str = "quickstart";

/// An edit of each kind, and where it shows.
fn edits() -> [(&'static str, &'static str, Value, &'static str); 7] {
    let template = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
    let grace = "/spec/template/spec/terminationGracePeriodSeconds";
    let ports = json!({"spec": {"ports": [{"name": "grpc", "port": 9999}]}});
    [
        ("deployments", NAME, template, grace),
        ("services", NAME, ports, "/spec/ports/0/port"),
        (
            "services",
            "quickstart-pods",
            json!({"spec": {"publishNotReadyAddresses": null, "selector": {(INSTANCE): "other"}}}),
            "/spec/selector",
        ),
        ("configmaps", "quickstart-policy", json!({"data": {"v1.json": "edited"}}), "/data"),
        (
            "horizontalpodautoscalers",
            NAME,
            json!({"spec": {"maxReplicas": 9}}),
            "/spec/maxReplicas",
        ),
        (
            "poddisruptionbudgets",
            NAME,
            json!({"spec": {"maxUnavailable": 3}}),
            "/spec/maxUnavailable",
        ),
        (
            "serviceaccounts",
            NAME,
            json!({"automountServiceAccountToken": true}),
            "/automountServiceAccountToken",
        ),
    ]
}

#[tokio::test]
async fn every_child_is_put_back_and_keeps_what_others_own() {
    let namespace = ControlPlane::shared().await.namespace("edits").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model(NAME, &json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})).await;
    world.rest(&proxy).await;
    let before = world.children().await;
    assert_eq!(
        before.len(),
        9,
        "{:?}",
        before.iter().map(|(_, child)| name(child)).collect::<Vec<_>>()
    );
    for (kind, child) in &before {
        let theirs = json!({"metadata": {
            "labels": {"example.com/team": "search"}, "annotations": {"example.com/note": "ours"},
        }});
        world.merge(kind, name(child), &theirs).await.unwrap();
    }
    let team = json!({"name": "TEAM", "value": "search"});
    let env = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {"template": {"spec": {"containers": [{"name": "sidecar", "env": [team]}]}}},
    });
    world.apply(SOMEBODY, "deployments", &env).await.unwrap();
    for (kind, child, edit, _) in edits() {
        world.merge(kind, child, &edit).await.unwrap();
    }
    let ours = |object: &Value, field: &str| object.pointer(field).cloned();
    for (kind, child, _, field) in edits() {
        let (_, was) = before.iter().find(|(of, one)| (*of, name(one)) == (kind, child)).unwrap();
        until(&format!("{kind} {child} {field} is put back"), async || {
            ours(&world.get(kind, child).await, field) == ours(was, field)
        })
        .await;
    }
    world.rest(&proxy).await;
    for (kind, child) in &before {
        let metadata = world.get(kind, name(child)).await["metadata"].take();
        let [label, note] =
            [&metadata["labels"]["example.com/team"], &metadata["annotations"]["example.com/note"]];
        assert_eq!((label, note), (&json!("search"), &json!("ours")), "{kind} {}", name(child));
    }
    let container = "/spec/template/spec/containers/0/env/0";
    assert_eq!(ours(&world.get("deployments", NAME).await, container), Some(team));
    alone.stop().await;
}

#[tokio::test]
async fn every_child_that_somebody_deletes_is_made_again() {
    let namespace = ControlPlane::shared().await.namespace("deletes").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model(NAME, &json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})).await;
    world.rest(&proxy).await;
    for (kind, child) in world.children().await {
        world.delete(kind, name(&child)).await.unwrap();
        until(&format!("{kind} {} is there again", name(&child)), async || {
            let now = world.get(kind, name(&child)).await;
            now["metadata"]["uid"].is_string() && now["metadata"]["uid"] != child["metadata"]["uid"]
        })
        .await;
    }
    world.rest(&proxy).await;
    assert_eq!(world.children().await.len(), 9);
    alone.stop().await;
}

#[tokio::test]
async fn longest_name_is_built_and_a_longer_one_is_refused_in_a_sentence() {
    let namespace = ControlPlane::shared().await.namespace("names").await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    let longest = "a".repeat(45);
    let refused = crate::world::model(&format!("{longest}a"), &json!({}));
    let error = world.create(crate::world::MODELS, &refused).await.unwrap_err().to_string();
    assert!(error.contains("45 characters"), "{error}");
    world.model(&longest, &json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})).await;
    world.rest(&proxy).await;
    assert_eq!(world.children().await.len(), 9);
    // The controllers of Kubernetes itself make names of it, too.
    until("it has a pod", async || {
        let pods = world.list("pods").await;
        pods.iter().any(|pod| pod["metadata"]["labels"][INSTANCE] == longest.as_str())
    })
    .await;
    alone.stop().await;
}
