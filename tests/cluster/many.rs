//! Many models at once.

use std::collections::BTreeSet;

use embark_tests::{
    api_proxy::Call, cluster::ControlPlane, note, operator::Operator, sidecar::until,
};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use crate::world::{STATUS, World, lines, resident_bytes};

const MODELS: usize = 500;
/// Requests that a new model may cost.
const REQUESTS: usize = 15;
/// Memory that the operator may have.
const MEMORY: u64 = 200 << 20;
/// Models that are made at a time.
const AT_A_TIME: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_models_cost_fifteen_requests_each_and_little_memory() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("many").await;
    let world = World::of(&namespace).await;
    let (operator, proxy) = Operator::start_through_proxy(&namespace).await;
    // The operator alone is of interest: Kubernetes' own controllers would make as much again of every Deployment.
    plane.stop_component("kube-controller-manager").await;
    operator.wait_for_line("\"leading\"").await;
    let mark = proxy.mark();
    let began = Instant::now();
    let mut making = JoinSet::new();
    for model in 0..MODELS {
        if making.len() >= AT_A_TIME {
            making.join_next().await.unwrap().unwrap();
        }
        let world = world.clone();
        making.spawn(async move { world.model(&format!("model-{model}"), &json!({})).await });
    }
    making.join_all().await;
    note(&format!("{MODELS} models were made in {:?}", began.elapsed()));
    until("every model is told of", async || {
        let told = proxy.since(mark, |call| call.resource == STATUS && call.code == 200);
        told.iter().map(|call| &call.name).collect::<BTreeSet<_>>().len() == MODELS
    })
    .await;
    let is_ours = |call: &Call| call.namespace == world.namespace() && call.resource != "leases";
    let calls = proxy.since(mark, is_ours);
    note(&format!(
        "all were told of after {:?}, by {} requests; the operator has {} MiB",
        began.elapsed(),
        calls.len(),
        resident_bytes(&operator) >> 20,
    ));
    let bound = REQUESTS * MODELS;
    assert!(calls.len() <= bound, "{} requests:\n{}", calls.len(), lines(&calls[..60]));
    assert!(resident_bytes(&operator) <= MEMORY, "{} bytes", resident_bytes(&operator));
    // Another finds all of it as it should be.
    let again = operator.another_through(&proxy, "again").await;
    operator.stop().await;
    let mark = proxy.mark();
    until("every model is reconciled", async || again.all_reconciles().await >= 500.0).await;
    let calls = proxy.since(mark, is_ours);
    assert!(calls.is_empty(), "{} requests:\n{}", calls.len(), lines(&calls));
    assert!(resident_bytes(&again) <= MEMORY, "{} bytes", resident_bytes(&again));
    note(&format!("after a restart the operator has {} MiB", resident_bytes(&again) >> 20));
    again.stop().await;
}
