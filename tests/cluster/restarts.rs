//! An API server that goes away for a while.

use embark_tests::{
    api_proxy::{Call, Verb},
    cluster::ControlPlane,
    operator::Operator,
    sidecar::until,
};
use serde_json::json;

use crate::world::{World, lines};

const NAME: &str = "quickstart";
/// Looks at the Lease while the API server is away: the leader has stopped before the last of them.
const LOOKS: usize = 8;
/// Other requests meanwhile for each of those: eight watches that wait ever longer.
const OTHERS: usize = 8;

#[tokio::test]
async fn api_server_that_restarts_is_waited_for_and_nothing_is_missed() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("restarts").await;
    let world = World::of(&namespace).await;
    let (operator, proxy) = Operator::start_through_proxy(&namespace).await;
    world.model(NAME, &json!({})).await;
    world.rest(&proxy).await;
    // Long enough for the Lease to be lost, then so short that it is not.
    for (replicas, looks) in [(2, LOOKS), (3, 1)] {
        let mark = proxy.mark();
        plane.stop_component("kube-apiserver").await;
        let is_lease = |call: &Call| call.resource == "leases";
        until("the Lease was asked for in vain", async || {
            proxy.since(mark, |call| is_lease(call) && call.code == 0).len() >= looks
        })
        .await;
        let others = proxy.since(mark, |call| !is_lease(call));
        assert!(others.len() <= OTHERS * (looks + 4), "{}", lines(&others));
        plane.start_component("kube-apiserver").await;
        let ttl = format!("{replicas}h");
        world.edit(NAME, &json!({"replicas": replicas, "cache": {"ttl": ttl}})).await;
        until("the edit is followed", async || {
            world.get("deployments", NAME).await["spec"]["replicas"] == replicas
        })
        .await;
        world.rest(&proxy).await;
        let begun = proxy.since(mark, |call| matches!(call.verb, Verb::Watch | Verb::List));
        assert!(begun.len() <= 2 * OTHERS * (looks + 4), "{}", lines(&begun));
    }
    operator.stop_after_restarts().await;
}
