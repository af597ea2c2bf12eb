//! Models that are made, edited and deleted at random, children that are edited and deleted at random, an operator that is
//! killed and an API server that restarts: once it is over, the world is what the models say, and nothing is left of those
//! that are gone.
//!
//! 90 seconds; ten minutes with `EMBARK_TEST_LONG=1`. `EMBARK_TEST_SEED` repeats a run's choices.

use std::time::Duration;

use embark_tests::{
    ApiProxy, Random,
    api_proxy::{Call, Fault, Verb},
    cluster::ControlPlane,
    long::{self, Blows},
    note,
    operator::Operator,
    sidecar::until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{INSTANCE, MODELS, STATUS, World, conditions, lines, model, name};

/// Names of models: few, so that one is often made anew while the children of the last are not gone yet.
const NAMES: usize = 8;
/// Between two blows at something larger: in the shortest run there is time for each kind.
const BETWEEN: Duration = Duration::from_secs(8);
/// Operators that are asked one after the other whether there is something to do.
const LOOKS: usize = 8;

/// A spec of any kind; one in eight is refused.
fn spec(random: &mut Random) -> Value {
    let mut spec = json!({
        "replicas": random.below(4),
        "autoscaling": null,
        "cache": {"ttl": format!("{}h", 1 + random.below(48))},
        "disruptionBudget": {"maxUnavailable": 1 + random.below(3)},
        "pod": {"labels": {"example.com/team": format!("team-{}", random.below(3))}},
    });
    if random.below(2) == 0 {
        let least = 1 + random.below(3);
        let most = least + random.below(5);
        spec["autoscaling"] = json!({"minReplicas": least, "maxReplicas": most});
    }
    if random.below(3) == 0 {
        spec["batching"] = json!({"maxItems": 1 + random.below(64)});
    }
    let uri = if random.below(8) == 0 { "file://model.onnx" } else { GOOD };
    spec["model"] = json!({"source": {"uri": uri}});
    spec
}

const GOOD: &str = "builtin://tiny-static-minilm/model.onnx";

/// An edit of a child that its model does not want.
fn edit(kind: &str, random: &mut Random) -> Value {
    match (kind, random.below(3)) {
        ("deployments", 0) => json!({"spec": {"replicas": 7}}),
        ("deployments", _) => {
            json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}})
        }
        ("services", 0) => json!({"spec": {"ports": [{"name": "grpc", "port": 9999}]}}),
        ("services", _) => json!({"spec": {"selector": {(INSTANCE): "other"}}}),
        ("configmaps", _) => json!({"data": {"v1.json": "edited"}}),
        ("horizontalpodautoscalers", _) => json!({"spec": {"minReplicas": 4, "maxReplicas": 9}}),
        ("poddisruptionbudgets", _) => json!({"spec": {"maxUnavailable": 9}}),
        (_, _) => json!({"automountServiceAccountToken": true}),
    }
}

/// One deed. What is there no more, or refused, is as good as done.
async fn deed(world: &World, random: &mut Random) {
    let name_ = format!("model-{}", random.index(NAMES));
    match random.below(10) {
        0..3 => drop(world.create(MODELS, &model(&name_, &spec(random))).await),
        3..6 => drop(world.merge(MODELS, &name_, &json!({"spec": spec(random)})).await),
        6 => drop(world.delete(MODELS, &name_).await),
        kind => {
            let children = world.children().await;
            if children.is_empty() {
                return;
            }
            let (of, child) = &children[random.index(children.len())];
            let _ = match kind {
                7 => world.delete(of, name(child)).await,
                _ => world.merge(of, name(child), &edit(of, random)).await,
            };
        }
    }
}

/// What happens to the operator or the API server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    RestartServer,
    KillOperator,
    HandOver,
    Trouble(Fault),
}

/// One of each kind.
const BLOWS: [Blow; 10] = [
    Blow::RestartServer,
    Blow::KillOperator,
    Blow::HandOver,
    Blow::Trouble(Fault::Refuse(409)),
    Blow::Trouble(Fault::Refuse(500)),
    Blow::Trouble(Fault::Refuse(503)),
    Blow::Trouble(Fault::Throttle(1)),
    Blow::Trouble(Fault::NoAnswer),
    Blow::Trouble(Fault::LoseAnswer),
    Blow::Trouble(Fault::EmptyWatch),
];

async fn strike(
    plane: &ControlPlane,
    operator: Operator,
    (proxy, blow): (&ApiProxy, Blow),
) -> Operator {
    match blow {
        Blow::RestartServer => {
            plane.stop_component("kube-apiserver").await;
            plane.start_component("kube-apiserver").await;
            operator
        }
        Blow::KillOperator => {
            operator.signal("KILL").await;
            operator.another_through(proxy, &format!("after-{}", operator.id())).await
        }
        Blow::HandOver => {
            let next = operator.another_through(proxy, &format!("after-{}", operator.id())).await;
            operator.stop_after_restarts().await;
            next
        }
        Blow::Trouble(fault) => {
            proxy.inject(10, fault, move |call| {
                call.is_write() != (fault == Fault::EmptyWatch) && call.resource != "leases"
            });
            operator
        }
    }
}

/// Whether the children of a model are what it says, as far as can be told without building them.
fn differs(model: &Value, children: &[(&'static str, Value)]) -> Option<String> {
    let (name_, spec) = (name(model), &model["spec"]);
    let child = |kind: &str, name_: &str| {
        let found = children.iter().find(|(of, child)| *of == kind && name(child) == name_);
        found.map_or(Value::Null, |(_, child)| child.clone())
    };
    let deployment = child("deployments", name_);
    let autoscaler = child("horizontalpodautoscalers", name_);
    let budget = child("poddisruptionbudgets", name_);
    let pods = &deployment["spec"]["template"];
    let is_autoscaled = !spec["autoscaling"].is_null();
    let wanted = |field: &str, default: u64| {
        if spec[field].is_null() { json!(default) } else { spec[field].clone() }
    };
    let service = child("services", name_);
    let policy = child("configmaps", &format!("{name_}-policy"));
    let checks = [
        ("replicas", is_autoscaled || deployment["spec"]["replicas"] == wanted("replicas", 1)),
        ("grace", pods["spec"]["terminationGracePeriodSeconds"] != 1),
        (
            "labels",
            pods["metadata"]["labels"]["example.com/team"]
                == spec["pod"]["labels"]["example.com/team"],
        ),
        ("autoscaler", is_autoscaled != autoscaler.is_null()),
        ("least", autoscaler["spec"]["minReplicas"] == spec["autoscaling"]["minReplicas"]),
        ("most", autoscaler["spec"]["maxReplicas"] == spec["autoscaling"]["maxReplicas"]),
        ("budget", budget["spec"]["maxUnavailable"] == spec["disruptionBudget"]["maxUnavailable"]),
        ("port", service["spec"]["ports"][0]["port"] == 8081),
        ("selector", service["spec"]["selector"][INSTANCE] == name_),
        ("headless", child("services", &format!("{name_}-pods"))["spec"]["clusterIP"] == "None"),
        ("account", !child("serviceaccounts", name_).is_null()),
        ("contract", !child("configmaps", &format!("{name_}-contract")).is_null()),
        ("policy", policy["data"].is_object() && policy["data"]["v1.json"] != "edited"),
    ];
    checks.into_iter().find(|(_, holds)| !holds).map(|(what, _)| format!("{name_}: {what}"))
}

/// Children whose owner is no model that is there.
fn orphans(models: &[Value], children: &[(&'static str, Value)]) -> Vec<String> {
    let owned = |child: &Value| {
        let owner = &child["metadata"]["ownerReferences"][0]["uid"];
        models.iter().any(|model| model["metadata"]["uid"] == *owner)
    };
    let orphans = children.iter().filter(|(_, child)| !owned(child));
    orphans.map(|(kind, child)| format!("{kind}/{}", name(child))).collect()
}

fn is_refused(model: &Value) -> bool {
    model["spec"]["model"]["source"]["uri"] != GOOD
}

#[tokio::test]
async fn world_is_what_the_models_say_after_chaos() {
    let mut random = long::random();
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("chaos").await;
    let world = World::of(&namespace).await;
    let (mut operator, proxy) = Operator::start_through_proxy(&namespace).await;
    let (began, mut deeds) = (Instant::now(), 0_u64);
    let mut blows = Blows::new(&BLOWS, BETWEEN);
    // However slow the machine is, each kind comes once.
    while began.elapsed() < long::lasts() || !blows.are_enough() {
        deed(&world, &mut random).await;
        deeds += 1;
        if let Some(blow) = blows.due(&mut random) {
            operator = strike(&plane, operator, (&proxy, blow)).await;
            blows.came(blow);
        }
    }
    note(&format!("{deeds} deeds, {} requests of the operator", proxy.mark()));
    assert!(blows.missing().is_empty(), "some did not happen: {blows:?}");
    proxy.clear();
    namespace.collect_anew().await;
    let mut differences = Vec::new();
    let at_rest = tokio::time::timeout(embark_tests::sidecar::LIMIT, async {
        world.rest(&proxy).await;
        until("nothing is orphaned, and every model is as it says", async || {
            let (models, children) = (world.list(MODELS).await, world.children().await);
            let good = models.iter().filter(|model| !is_refused(model));
            differences = good.filter_map(|model| differs(model, &children)).collect();
            differences.extend(orphans(&models, &children));
            differences.is_empty()
        })
        .await;
    });
    let is_at_rest = at_rest.await.is_ok();
    assert!(is_at_rest, "{differences:?}");
    for model in world.list(MODELS).await.iter().filter(|model| is_refused(model)) {
        let accepted = conditions(model).into_iter().find(|one| one["type"] == "Accepted");
        assert_eq!(accepted.unwrap_or_default()["status"], "False", "{}", name(model));
    }
    has_nothing_to_do(&world, operator, &proxy).await;
}

/// By the operator's own measure: another that knows nothing yet finds nothing to do. What the controllers of Kubernetes say
/// late of a Deployment is still to be told, and the contract of a revision that they delete late is still to go; a child is
/// not to be written again.
async fn has_nothing_to_do(world: &World, mut operator: Operator, proxy: &ApiProxy) {
    let count = f64::from(u32::try_from(world.list(MODELS).await.len()).unwrap());
    for look in 0..LOOKS {
        let mark = proxy.mark();
        let another = operator.another_through(proxy, &format!("look-{look}")).await;
        operator.stop_after_restarts().await;
        until("each is reconciled", async || another.all_reconciles().await >= count).await;
        let writes = proxy.writes(mark, world.namespace());
        let is_late = |write: &&Call| {
            let deleted = (write.verb == Verb::Delete, write.resource.as_str());
            write.resource == STATUS || deleted == (true, "configmaps")
        };
        let wrong: Vec<_> = writes.iter().filter(|write| !is_late(write)).cloned().collect();
        assert!(wrong.is_empty(), "{}", lines(&wrong));
        operator = another;
        if writes.is_empty() {
            return operator.stop().await;
        }
    }
    panic!("after {LOOKS} operators, there still was something to tell");
}
