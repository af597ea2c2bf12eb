//! An operator of another version, which gives pods another image.

use std::collections::{BTreeMap, BTreeSet};

use embark_tests::{
    ApiProxy,
    api_proxy::Verb,
    cluster::{ControlPlane, Namespace},
    operator::Operator,
    sidecar::until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{World, name};

const MODELS: usize = 12;
/// Models that an upgrade of the operator rolls at a time.
const AT_A_TIME: usize = 5;
const NEXT: &str = "localhost/embark-sidecar:next";

/// Models that are rolled out with the image of one operator, and another operator with another image.
struct Upgrade {
    world: World,
    next: Operator,
    proxy: ApiProxy,
    /// When each was said to be rolled out with the new image.
    finished: BTreeMap<String, Instant>,
    _plane: ControlPlane,
    namespace: Namespace,
}

// === impl Upgrade ===

impl Upgrade {
    async fn start() -> Upgrade {
        let plane = ControlPlane::start().await;
        let namespace = plane.namespace("upgrade").await;
        let world = World::of(&namespace).await;
        let (operator, first) = Operator::start_through_proxy(&namespace).await;
        // The test says how far a roll-out is.
        plane.stop_component("kube-controller-manager").await;
        for model in 0..MODELS {
            world.model(&format!("model-{model:02}"), &json!({})).await;
        }
        world.rest(&first).await;
        for deployment in world.list("deployments").await {
            finish(&world, &deployment).await;
        }
        world.rest(&first).await;
        let proxy = first.another().await;
        let next = operator.another_with_image("next", (&proxy, NEXT)).await;
        operator.stop().await;
        let finished = BTreeMap::new();
        Upgrade { world, next, proxy, finished, _plane: plane, namespace }
    }

    /// Kills the operator, and waits until another leads.
    async fn kill(mut self) -> Upgrade {
        let again = self.next.another_with_image("again", (&self.proxy, NEXT)).await;
        std::mem::replace(&mut self.next, again).kill().await;
        self.next.wait_for_line("\"leading\"").await;
        self
    }

    /// Those with the new image that are not rolled out, and those that wait.
    async fn rolling_and_waiting(&self) -> (Vec<Value>, Vec<Value>) {
        let all = self.world.list("deployments").await;
        let (new, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| image(one) == NEXT);
        let is_rolling =
            |one: &Value| one["status"]["observedGeneration"] != one["metadata"]["generation"];
        (new.into_iter().filter(is_rolling).collect(), waiting)
    }

    async fn finish(&mut self, deployment: &Value) {
        self.finished.insert(name(deployment).to_owned(), Instant::now());
        finish(&self.world, deployment).await;
    }

    /// How many rolled at a time, at most.
    fn most_at_a_time(&self) -> usize {
        let applied = self.proxy.since(0, |call| call.is(Verb::Patch, "deployments"));
        let at = |now: Instant| {
            let begun = applied.iter().filter(|call| call.began <= now);
            let names: BTreeSet<&String> = begun.map(|call| &call.name).collect();
            let is_rolling =
                |name: &&&String| self.finished.get(**name).is_none_or(|end| *end > now);
            names.iter().filter(is_rolling).count()
        };
        applied.iter().map(|call| at(call.began)).max().unwrap_or(0)
    }
}

#[tokio::test]
async fn operator_upgrade_rolls_at_most_five_models_at_a_time() {
    let mut upgrade = Upgrade::start().await;
    loop {
        let expected = AT_A_TIME.min(MODELS - upgrade.finished.len());
        until(&format!("{expected} roll"), async || {
            upgrade.rolling_and_waiting().await.0.len() >= expected
        })
        .await;
        let (rolling, _) = upgrade.rolling_and_waiting().await;
        // Some are done, the others take their time.
        for deployment in rolling.iter().take(2) {
            upgrade.finish(deployment).await;
        }
        if upgrade.finished.len() == MODELS {
            break;
        }
    }
    let (rolling, waiting) = upgrade.rolling_and_waiting().await;
    assert_eq!((rolling.len(), waiting.len()), (0, 0));
    assert_eq!(upgrade.most_at_a_time(), AT_A_TIME);
    upgrade.next.stop().await;
}

#[tokio::test]
async fn leader_that_follows_one_that_was_killed_begins_no_sixth() {
    let upgrade = Upgrade::start().await;
    until("as many roll as may", async || upgrade.rolling_and_waiting().await.0.len() >= AT_A_TIME)
        .await;
    let mut upgrade = upgrade.kill().await;
    let names = |all: &[Value]| all.iter().map(|one| name(one).to_owned()).collect::<Vec<_>>();
    let (rolling, waiting) = upgrade.rolling_and_waiting().await;
    assert_eq!((rolling.len(), waiting.len()), (AT_A_TIME, MODELS - AT_A_TIME));
    for model in names(&waiting) {
        upgrade.next.reconciles(&upgrade.namespace, &model).await;
    }
    let now = upgrade.rolling_and_waiting().await;
    assert_eq!([names(&now.0), names(&now.1)], [names(&rolling), names(&waiting)]);
    // It has not forgotten the others: one that is done makes room for the next.
    upgrade.finish(&rolling[0]).await;
    until("a sixth begins", async || {
        upgrade.rolling_and_waiting().await.1.len() == waiting.len() - 1
    })
    .await;
    upgrade.next.stop().await;
}

#[tokio::test]
async fn users_own_change_waits_for_no_upgrade() {
    let upgrade = Upgrade::start().await;
    until("as many roll as may", async || upgrade.rolling_and_waiting().await.0.len() >= AT_A_TIME)
        .await;
    let (_, waiting) = upgrade.rolling_and_waiting().await;
    let waiting = name(waiting.first().expect("some wait")).to_owned();
    let labels = json!({"pod": {"labels": {"example.com/team": "search"}}, "replicas": 2});
    upgrade.world.edit(&waiting, &labels).await;
    until("the user's change is applied", async || {
        let now = upgrade.world.get("deployments", &waiting).await;
        now["spec"]["template"]["metadata"]["labels"]["example.com/team"] == "search"
            && now["spec"]["replicas"] == 2
    })
    .await;
    upgrade.next.stop().await;
}

/// Says that a Deployment is rolled out, as its controller does.
async fn finish(world: &World, deployment: &Value) {
    let replicas = &deployment["spec"]["replicas"];
    let status = json!({"status": {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
    }});
    world.merge("deployments/status", name(deployment), &status).await.unwrap();
}

fn image(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]["image"]
}
