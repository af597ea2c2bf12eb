//! An API server that refuses, is slow, falls silent or breaks off: the world comes to be as it should, and it is never asked
//! without a pause.

use std::time::Duration;

use embark_tests::{
    ApiProxy,
    api_proxy::{Call, Fault, Order, Verb},
    cluster::{ControlPlane, Namespace},
    operator::Alone,
    sidecar::until,
};
use serde_json::json;

use crate::world::{World, lines};

const NAME: &str = "quickstart";
/// Kinds that are watched: models, children, pods, and the definition of PodMonitors.
const WATCHED: usize = 10;

/// A model at rest, whose operator's requests go through a proxy.
async fn start(prefix: &str) -> (World, ApiProxy, Alone, Namespace) {
    let namespace = ControlPlane::shared().await.namespace(prefix).await;
    let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    world.model(NAME, &json!({})).await;
    world.rest(&proxy).await;
    (world, proxy, alone, namespace)
}

/// Whether a request writes into this world.
fn writes_to(world: &World) -> impl Fn(&Call) -> bool + Clone + Send + Sync + use<> {
    let namespace = world.namespace().to_owned();
    move |call| call.is_write() && call.namespace == namespace && call.resource != "leases"
}

async fn grace(world: &World) -> i64 {
    let deployment = world.get("deployments", NAME).await;
    deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(-1)
}

/// Edits a child, and waits until that is put back.
async fn is_put_back(world: &World) {
    let right = grace(world).await;
    let wrong = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
    world.merge("deployments", NAME, &wrong).await.unwrap();
    until("the edit is put back", async || grace(world).await == right).await;
}

/// The shortest time between two requests that follow each other.
fn shortest_pause(calls: &[Call]) -> Duration {
    let pauses = calls.windows(2).map(|pair| pair[1].began - pair[0].began);
    pauses.min().expect("two requests at least")
}

#[tokio::test]
async fn refused_writes_are_made_again() {
    let (world, proxy, alone, _namespace) = start("refused").await;
    let faults = [
        Fault::Refuse(409),
        Fault::Refuse(410),
        Fault::Refuse(500),
        Fault::Refuse(503),
        Fault::Throttle(1),
        Fault::NoAnswer,
        Fault::LoseAnswer,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let mark = proxy.mark();
        proxy.inject(2, fault, writes_to(&world));
        let replicas = number + 2;
        let ttl = format!("{replicas}h");
        world.edit(NAME, &json!({"replicas": replicas, "cache": {"ttl": ttl}})).await;
        until(&format!("{fault:?} is got over"), async || {
            world.get("deployments", NAME).await["spec"]["replicas"] == replicas
        })
        .await;
        world.told().await;
        let calls = proxy.writes(mark, world.namespace());
        // Two writes of an edit, its status, two that failed and what they said, with their events.
        assert!(calls.len() <= 20, "{fault:?}: {}", lines(&calls));
    }
    proxy.clear();
    world.rest(&proxy).await;
    is_put_back(&world).await;
    alone.stop().await;
}

#[tokio::test]
async fn server_that_asks_for_a_pause_gets_it() {
    let (world, proxy, alone, _namespace) = start("throttled").await;
    let mark = proxy.mark();
    let is_policy =
        |call: &Call| call.is(Verb::Patch, "configmaps") && call.name.contains("policy");
    let ours = writes_to(&world);
    proxy.inject(2, Fault::Throttle(3), move |call| ours(call) && is_policy(call));
    world.edit(NAME, &json!({"cache": {"ttl": "1h"}})).await;
    world.rest(&proxy).await;
    let calls = proxy.since(mark, is_policy);
    assert!(calls.len() >= 3, "{}", lines(&calls));
    for pair in calls.windows(2).take(2) {
        let pause = pair[1].began - pair[0].ended.expect("it was refused");
        assert!(pause >= Duration::from_secs(3), "asked again after {pause:?}");
    }
    alone.stop().await;
}

#[tokio::test]
async fn server_that_always_fails_is_asked_ever_more_seldom() {
    let (world, proxy, alone, _namespace) = start("failing").await;
    proxy.inject(usize::MAX, Fault::Refuse(500), writes_to(&world));
    let mark = proxy.mark();
    let is_policy =
        |call: &Call| call.is(Verb::Patch, "configmaps") && call.name.contains("policy");
    world.edit(NAME, &json!({"cache": {"ttl": "1h"}})).await;
    until("it has tried four times", async || proxy.since(mark, is_policy).len() >= 4).await;
    let calls = proxy.since(mark, is_policy);
    for (doubled, pair) in calls.windows(2).take(3).enumerate() {
        let pause = pair[1].began - pair[0].began;
        assert!(pause >= Duration::from_secs(1 << doubled), "{doubled}: after {pause:?}");
    }
    proxy.clear();
    world.rest(&proxy).await;
    alone.stop().await;
}

#[tokio::test]
async fn watches_that_break_end_or_expire_are_begun_again_and_nothing_is_missed() {
    let (world, proxy, alone, _namespace) = start("watches").await;
    for order in [Order::Break, Order::End, Order::Expire] {
        let right = grace(&world).await;
        // What happens now is heard of by no watch that is open.
        let is_ours = |call: &Call| call.verb == Verb::Watch;
        until("every watch is open, and mute", async || {
            proxy.order(Order::Mute, is_ours).await >= WATCHED
        })
        .await;
        let wrong = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
        world.merge("deployments", NAME, &wrong).await.unwrap();
        world.delete("configmaps", "quickstart-policy").await.unwrap();
        world.model("late", &json!({})).await;
        let mark = proxy.mark();
        proxy.order(order, is_ours).await;
        until(&format!("{order:?}: the edit is put back"), async || grace(&world).await == right)
            .await;
        until(&format!("{order:?}: the ConfigMap is there again"), async || {
            !world.get("configmaps", "quickstart-policy").await.is_null()
        })
        .await;
        world.rest(&proxy).await;
        let begun = proxy.since(mark, |call| matches!(call.verb, Verb::Watch | Verb::List));
        assert!(begun.len() <= 4 * WATCHED, "{order:?}: {}", lines(&begun));
        world.delete(crate::world::MODELS, "late").await.unwrap();
        until("it is gone with its children", async || {
            world.get("deployments", "late").await.is_null()
        })
        .await;
    }
    alone.stop().await;
}

#[tokio::test]
async fn watches_that_cannot_begin_or_end_at_once_are_not_asked_for_without_a_pause() {
    let (world, proxy, alone, _namespace) = start("hot").await;
    for fault in [Fault::EmptyWatch, Fault::Refuse(500)] {
        let is_watch = |call: &Call| call.verb == Verb::Watch && call.resource == "services";
        let mark = proxy.mark();
        proxy.inject(usize::MAX, fault, is_watch);
        proxy.order(Order::Break, is_watch).await;
        until("it has tried a few times", async || proxy.since(mark, is_watch).len() >= 3).await;
        let pause = shortest_pause(&proxy.since(mark, is_watch));
        assert!(pause >= Duration::from_millis(500), "{fault:?}: asked again after {pause:?}");
        proxy.clear();
    }
    let right = world.get("services", NAME).await["spec"]["ports"].clone();
    let wrong = json!({"spec": {"ports": [{"name": "grpc", "port": 9999}]}});
    world.merge("services", NAME, &wrong).await.unwrap();
    until("the edit is put back", async || {
        world.get("services", NAME).await["spec"]["ports"] == right
    })
    .await;
    alone.stop().await;
}

#[tokio::test]
async fn answers_that_never_come_hold_nobody_up() {
    let (world, proxy, alone, _namespace) = start("silent").await;
    // As many as are reconciled at a time: each waits for an answer that is lost on its way.
    let namespace = world.namespace().to_owned();
    let is_theirs = move |call: &Call| {
        call.is_write() && call.namespace == namespace && call.name.starts_with("silent")
    };
    proxy.inject(usize::MAX, Fault::Hold, is_theirs);
    for model in 0..8 {
        world.model(&format!("silent-{model}"), &json!({})).await;
    }
    world.edit(NAME, &json!({"replicas": 2})).await;
    until("another model gets its turn", async || {
        world.get("deployments", NAME).await["spec"]["replicas"] == 2
    })
    .await;
    proxy.clear();
    world.rest(&proxy).await;
    alone.stop().await;
}
