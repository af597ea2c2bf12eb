//! Models that are made, edited and deleted at random, pods and children that are deleted at random, while the kubelet, the
//! API server and the operator restart: once it is over, the pods that run are those that the models ask for, and nothing else is left.
//!
//! It takes services away under which no other test could run, so it has a binary and with it a node of its own.
//!
//! 90 seconds; ten minutes with `EMBARK_TEST_LONG=1`. `EMBARK_TEST_SEED` repeats a run's choices.

#![cfg(test)]

#[path = "../cluster/world.rs"]
#[expect(dead_code, reason = "there is no proxy, and fewer kinds of trouble")]
mod world;

use std::time::Duration;

use embark_tests::{
    Random,
    cluster::Node,
    long::{self, Blows},
    note,
    release::Release,
    sidecar::until,
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use self::world::{INSTANCE, MODELS, World, conditions, is_told, model, name};

/// Names of models.
const NAMES: usize = 2;
/// Between two blows at something larger: in the shortest run there is time for each kind.
const BETWEEN: Duration = Duration::from_secs(20);
/// What restarts.
const BLOWS: [&str; 3] = ["kubelet", "kube-apiserver", "operator"];
/// Revisions of a pool that keep their contract: the present one, and two that can be rolled back to.
const REVISIONS: usize = 3;

fn spec(random: &mut Random) -> Value {
    json!({
        "replicas": 1 + random.below(2),
        "cache": {"mode": "Memory", "ttl": format!("{}h", 1 + random.below(48))},
        "batching": {"maxItems": 1 + random.below(4)},
        // Little, so that all have a place on one small node.
        "pod": {"resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}},
    })
}

/// One deed. What is there no more, or refused, is as good as done.
async fn deed(world: &World, random: &mut Random) {
    let name_ = format!("chaos-{}", random.index(NAMES));
    match random.below(8) {
        0..3 => drop(world.create(MODELS, &model(&name_, &spec(random))).await),
        3..5 => drop(world.merge(MODELS, &name_, &json!({"spec": spec(random)})).await),
        5 => drop(world.delete(MODELS, &name_).await),
        6 => {
            let pods = world.list("pods").await;
            if !pods.is_empty() {
                drop(world.delete("pods", name(&pods[random.index(pods.len())])).await);
            }
        }
        _ => {
            let children = world.children().await;
            if !children.is_empty() {
                let (kind, child) = &children[random.index(children.len())];
                drop(world.delete(kind, name(child)).await);
            }
        }
    }
}

/// How a model is not what it says.
async fn differs(world: &World, model: &Value) -> Option<String> {
    let of_it =
        |object: &Value| object["metadata"]["labels"][INSTANCE] == model["metadata"]["name"];
    let pods: Vec<Value> = world.list("pods").await.into_iter().filter(of_it).collect();
    let contracts = world.list("configmaps").await.into_iter().filter(of_it);
    let is_pools = |one: &Value| one["metadata"]["labels"]["embark.dev/role"] == "pool-contract";
    let contracts = contracts.filter(is_pools).count();
    let is_ready =
        conditions(model).iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    let replicas = model["spec"]["replicas"].as_u64().unwrap_or(1);
    let checks = [
        ("told", is_told(model)),
        ("ready", is_ready && model["status"]["readyReplicas"] == replicas),
        ("pods", pods.len() as u64 == replicas),
        ("contracts", (1..=REVISIONS).contains(&contracts)),
    ];
    checks.into_iter().find(|(_, holds)| !holds).map(|(what, _)| format!("{}: {what}", name(model)))
}

/// What carries the operator's label and belongs to no model that is there.
async fn orphans(world: &World, models: &[Value]) -> Vec<String> {
    let names: Vec<&str> = models.iter().map(name).collect();
    let mut ours = world.children().await;
    ours.extend(world.list("pods").await.into_iter().map(|pod| ("pods", pod)));
    let is_orphan = |object: &Value| {
        let of = object["metadata"]["labels"][INSTANCE].as_str().unwrap_or_default();
        !names.contains(&of)
    };
    let orphans = ours.iter().filter(|(_, object)| is_orphan(object));
    orphans.map(|(kind, object)| format!("{kind}/{}", name(object))).collect()
}

#[tokio::test]
async fn pods_are_what_the_models_say_after_chaos_with_kubelet_restarts() {
    let mut random = long::random();
    let (node, release) = (Node::shared().await, Release::shared().await);
    let namespace = node.restricted_namespace("chaos").await;
    let world = World::of(&namespace).await;
    let (began, mut deeds) = (Instant::now(), 0_u64);
    let mut blows = Blows::new(&BLOWS, BETWEEN);
    let mut ticks = interval(Duration::from_secs(1));
    // However slow the machine is, each kind comes once.
    while began.elapsed() < long::lasts() || !blows.are_enough() {
        ticks.tick().await;
        deed(&world, &mut random).await;
        deeds += 1;
        let Some(blow) = blows.due(&mut random) else { continue };
        match blow {
            "operator" => release.restart_operator().await,
            component => {
                node.stop_component(component).await;
                if component == "kubelet" {
                    deed(&world, &mut random).await;
                }
                node.start_component(component).await;
            }
        }
        blows.came(blow);
    }
    note(&format!("{deeds} deeds"));
    assert!(blows.missing().is_empty(), "some did not happen: {blows:?}");
    namespace.collect_anew().await;
    // However it went: one model to look at.
    world.create(MODELS, &model("chaos-last", &spec(&mut random))).await.unwrap();
    until("every model is as it says, and nothing is orphaned", async || {
        let models = world.list(MODELS).await;
        for model in &models {
            if differs(&world, model).await.is_some() {
                return false;
            }
        }
        orphans(&world, &models).await.is_empty()
    })
    .await;
}
