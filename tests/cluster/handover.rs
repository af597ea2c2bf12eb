//! Two operators and one Lease: whatever becomes of the leader, no two of them write at a time.

use std::time::Duration;

use embark_tests::{
    ApiProxy,
    api_proxy::{Call, Fault, Verb},
    cluster::{ControlPlane, Namespace},
    operator::{Alone, Operator},
    sidecar::until,
};
use serde_json::json;

use crate::world::{World, lines};

/// How long others leave a Lease alone that is not renewed.
const DURATION: Duration = Duration::from_secs(15);
/// Models that the leader is busy with: as many as it reconciles at a time.
const MANY: usize = 8;

/// A leader and a replica that waits, each behind a proxy of its own.
struct Two {
    world: World,
    alone: Alone,
    first: ApiProxy,
    other: Operator,
    second: ApiProxy,
    _namespace: Namespace,
}

// === impl Two ===

impl Two {
    async fn start(prefix: &str) -> Two {
        let namespace = ControlPlane::shared().await.namespace(prefix).await;
        let (alone, first) = Alone::start_through_proxy(&namespace).await;
        alone.operator.wait_for_line("\"leading\"").await;
        let second = first.another().await;
        let other = alone.operator.another_through(&second, "other").await;
        other.wait_for_line("another replica leads").await;
        let world = World::of(&namespace).await;
        for model in 0..MANY {
            world.model(&format!("model-{model}"), &json!({})).await;
        }
        world.rest(&first).await;
        // From then on the Lease's time is counted.
        until("the Lease is renewed", async || !renewals(&first).is_empty()).await;
        Two { world, alone, first, other, second, _namespace: namespace }
    }

    /// Gives the leader something to do with every model.
    async fn disturb(&self, replicas: usize) {
        for model in 0..MANY {
            let spec = json!({"replicas": replicas, "cache": {"ttl": format!("{replicas}h")}});
            self.world.edit(&format!("model-{model}"), &spec).await;
        }
    }

    /// Waits until the other leads and has done what the first left.
    async fn other_leads(&self, replicas: usize) {
        self.other.wait_for_line("\"leading\"").await;
        self.world.told().await;
        for model in 0..MANY {
            let deployment = self.world.get("deployments", &format!("model-{model}")).await;
            assert_eq!(deployment["spec"]["replicas"], replicas);
        }
        self.world.rest(&self.second).await;
    }

    /// Everything that the first wrote came before anything that the second did.
    fn never_both(&self) {
        let namespace = self.world.namespace();
        let (before, after) = (self.first.writes(0, namespace), self.second.writes(0, namespace));
        let first = after.first().expect("the second has written");
        let late: Vec<Call> =
            before.iter().filter(|write| write.began >= first.began).cloned().collect();
        assert!(late.is_empty(), "written by one that leads no more:\n{}", lines(&late));
    }

    /// The Lease was left alone for its time after its last renewal.
    fn lease_had_its_time(&self) {
        let taken = renewals(&self.second).first().expect("it was taken").began;
        let mut held = renewals(&self.first);
        held.retain(|renewal| renewal.began < taken);
        let waited = taken - held.last().expect("it was renewed").began;
        assert!(waited >= DURATION, "taken {waited:?} after its last renewal");
    }
}

fn renewals(proxy: &ApiProxy) -> Vec<Call> {
    proxy.since(0, |call| call.is(Verb::Update, "leases") && call.code == 200)
}

#[tokio::test]
async fn leader_that_ends_hands_over_and_writes_no_more() {
    let two = Two::start("ends").await;
    two.disturb(2).await;
    two.alone.operator.signal("TERM").await;
    two.other_leads(2).await;
    two.never_both();
    // Given back: that was the last that it wrote.
    let last = two.first.since(0, Call::is_write).pop().unwrap();
    assert_eq!(last.resource, "leases", "{}", last.line());
    two.other.stop().await;
}

#[tokio::test]
async fn leader_that_is_killed_is_followed_when_its_lease_has_ended() {
    let two = Two::start("killed").await;
    two.disturb(2).await;
    two.alone.operator.signal("KILL").await;
    two.other_leads(2).await;
    two.never_both();
    two.lease_had_its_time();
    two.other.stop().await;
}

#[tokio::test]
async fn leader_that_was_paused_writes_nothing_once_another_has_taken_over() {
    let two = Two::start("paused").await;
    let namespace = two.world.namespace().to_owned();
    // It is paused in the middle of its work: the answers to all that it has asked for are there when it goes on.
    let place = namespace.clone();
    two.first.inject(usize::MAX, Fault::HoldAnswer, move |call| {
        call.is_write() && call.namespace == place && call.resource != "leases"
    });
    let mark = two.first.mark();
    two.disturb(2).await;
    // Of each model: what is about to be sent when it is paused would be sent when it goes on.
    until("it is in the middle of its work", async || {
        let writes = two.first.writes(mark, &namespace);
        (0..MANY).all(|n| writes.iter().any(|write| write.name.starts_with(&format!("model-{n}"))))
    })
    .await;
    two.alone.operator.signal("STOP").await;
    two.first.clear();
    two.other_leads(2).await;
    two.lease_had_its_time();
    let mark = two.first.mark();
    two.alone.operator.signal("CONT").await;
    two.alone.operator.wait_for_line("another replica leads").await;
    let late = two.first.since(mark, Call::is_write);
    assert!(late.is_empty(), "written by one that leads no more:\n{}", lines(&late));
    two.never_both();
    two.other.stop().await;
    two.alone.stop().await;
}

#[tokio::test]
async fn leader_that_cannot_renew_stops_before_another_may_begin() {
    let two = Two::start("cut").await;
    let mark = two.first.mark();
    // It hears of everything, and may write all but the Lease.
    two.first.inject(usize::MAX, Fault::NoAnswer, |call| call.resource == "leases");
    two.alone.operator.wait_for_line("could not be renewed within").await;
    let stopped = two.first.mark();
    two.disturb(2).await;
    two.other_leads(2).await;
    two.lease_had_its_time();
    two.never_both();
    let late = two.first.writes(stopped, two.world.namespace());
    assert!(late.is_empty(), "written by one that leads no more:\n{}", lines(&late));
    let asked = two.first.since(mark, |call| call.resource == "leases");
    // Every 2 s; twice that leaves room for one that waits while it is asked.
    let passed = asked.last().expect("it has tried").began - asked[0].began;
    let most = usize::try_from(passed.as_secs()).unwrap() + 5;
    assert!(asked.len() <= most, "in {passed:?}: {}", lines(&asked));
    two.first.clear();
    two.other.stop().await;
    two.alone.stop().await;
}
