//! An operator of some namespaces, with the roles that the chart gives it there.

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    injection::asking,
    operator::{Operator, apply_definition},
    programs,
    sidecar::until,
};
use serde_json::{Value, json};

use crate::{
    children::{monitors::Kind, taken::nothing_is_taken},
    reports::{pods_of, run, speaker},
    world::{MODELS, World, is_told},
};

const NAME: &str = "quickstart";
/// Which policy a pod is to follow.
const POLICY: &str = "embark.dev/policy-hash";

/// A control plane, the operator's own namespace, and others.
struct Places {
    plane: ControlPlane,
    home: Namespace,
    a: Namespace,
    b: Namespace,
}

// === impl Places ===

impl Places {
    async fn start() -> Places {
        // Of its own: an operator that the others' tests run would serve these namespaces too.
        let plane = ControlPlane::start().await;
        apply_definition(&plane).await;
        let home = plane.namespace("home").await;
        let (a, b) = (plane.namespace("a").await, plane.namespace("b").await);
        Places { plane, home, a, b }
    }

    /// Starts the operator with the chart's roles for a and b, and lets it watch others too.
    async fn operator(&self, others: &[&str]) -> Operator {
        let watched = [self.a.name(), self.b.name()];
        let values = format!("watchNamespaces={{{}}}", watched.join(","));
        let all = watched.iter().chain(others).copied().collect::<Vec<_>>().join(",");
        let watch = format!("--watch-namespaces={all}");
        Operator::start_with(&self.home, &[&values], &[&watch]).await
    }
}

#[tokio::test]
async fn models_of_the_namespaces_that_are_watched_are_served_and_no_others() {
    let places = Places::start().await;
    let c = places.plane.namespace("c").await;
    let kind = Kind::define(&places.plane).await;
    let (in_a, in_b) = (World::of(&places.a).await, World::of(&places.b).await);
    let in_c = World::of(&c).await;
    // Before the operator, and while it runs.
    in_c.model("before", &json!({})).await;
    in_a.model("before", &json!({})).await;
    let operator = places.operator(&[]).await;
    in_c.model(NAME, &json!({})).await;
    in_b.model(NAME, &json!({})).await;
    for (world, model) in [(&in_a, "before"), (&in_b, NAME)] {
        until("it is served", async || is_served(world, model).await).await;
    }
    nothing_is_taken(&places.a).await;
    what_is_not_wanted_goes(&in_a).await;
    pod_is_told_of_its_policy(&in_b).await;
    // A sidecar is for pods beside the models that are watched. One that is not known is asked for once more.
    let allowed = asked_for(&operator, (&places.a, NAME)).await;
    assert_eq!(allowed["allowed"], true, "{allowed}");
    let refused = asked_for(&operator, (&places.b, "absent")).await;
    let sentence = format!("no EmbeddingModel \"absent\" in namespace {}", places.b.name());
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains(&sentence), "{message}");
    for model in ["before", NAME] {
        assert_eq!(in_c.get(MODELS, model).await["status"], Value::Null);
        assert_eq!(in_c.get("deployments", model).await, Value::Null);
    }
    operator.stop().await;
    kind.remove(&places.plane).await;
}

#[tokio::test]
async fn namespace_that_is_not_there_stops_no_other() {
    let places = Places::start().await;
    let in_a = World::of(&places.a).await;
    in_a.model("before", &json!({})).await;
    let operator = places.operator(&["absent"]).await;
    in_a.model("after", &json!({})).await;
    for model in ["before", "after"] {
        until("it is served", async || is_served(&in_a, model).await).await;
    }
    // What is edited is put back, as without the other.
    let right = in_a.get("services", "after").await["spec"]["ports"].clone();
    let wrong = json!({"spec": {"ports": [{"name": "grpc", "port": 9999}]}});
    in_a.merge("services", "after", &wrong).await.unwrap();
    until("the edit is put back", async || {
        in_a.get("services", "after").await["spec"]["ports"] == right
    })
    .await;
    assert_eq!(operator.get("/ready").await.0, 200);
    // Of the one that is absent it says that it has no right: nobody could give it any there.
    operator.stop_after_restarts().await;
}

#[tokio::test]
async fn namespace_that_is_deleted_stops_no_other() {
    let places = Places::start().await;
    let (in_a, in_b) = (World::of(&places.a).await, World::of(&places.b).await);
    in_b.model(NAME, &json!({})).await;
    let operator = places.operator(&[]).await;
    until("it is served", async || is_served(&in_b, NAME).await).await;
    let name = places.b.name().to_owned();
    places.plane.kubectl(["delete", "namespace", &name, "--wait=true"]).await;
    in_a.model("while", &json!({})).await;
    until("it is served", async || is_served(&in_a, "while").await).await;
    // One that begins then finds no more of it than its name.
    let again = operator.another("again").await;
    operator.stop_after_restarts().await;
    again.wait_for_line("\"leading\"").await;
    in_a.model("after", &json!({})).await;
    until("it is served", async || is_served(&in_a, "after").await).await;
    again.stop_after_restarts().await;
}

/// Takes away from a model, which has all of them, the children that it may be without.
async fn what_is_not_wanted_goes(world: &World) {
    let without = json!({"autoscaling": null, "networkPolicy": null, "replicas": 0});
    world.edit(NAME, &without).await;
    for items in 1..=4 {
        let change = json!({
            "batching": {"maxItems": items}, "pod": {"serviceAccountName": "default"},
        });
        world.edit(NAME, &change).await;
        until("the pods follow", async || {
            let progressing = world.condition(NAME, "Progressing").await;
            let generation = world.get(MODELS, NAME).await["metadata"]["generation"].clone();
            progressing["reason"] == "RolledOut" && progressing["observedGeneration"] == generation
        })
        .await;
    }
    for kind in ["horizontalpodautoscalers", "serviceaccounts", "networkpolicies"] {
        until(&format!("none of the {kind} is left"), async || {
            world.get(kind, NAME).await.is_null()
        })
        .await;
    }
    until("contracts are taken away", async || {
        let maps = world.list("configmaps").await;
        let ours = maps.iter().filter(|map| {
            map["metadata"]["labels"]["embark.dev/role"] == "pool-contract"
                && map["metadata"]["labels"]["app.kubernetes.io/instance"] == NAME
        });
        ours.count() <= 3
    })
    .await;
}

/// The model's one pod is patched when it follows another policy.
async fn pod_is_told_of_its_policy(world: &World) {
    let pod = pods_of(world, NAME, 1).await.remove(0);
    let process = speaker(world, NAME).await;
    process.say(|said| said.policy_hash = "another".to_owned());
    run(world, &pod, (&process, true)).await;
    until("the pod is told of its policy", async || {
        let wanted = world.get(MODELS, NAME).await["status"]["policy"]["desiredHash"].clone();
        world.get("pods", &pod).await["metadata"]["annotations"][POLICY] == wanted
    })
    .await;
}

/// What the webhook answers for a pod of a namespace that asks for a model.
async fn asked_for(operator: &Operator, (namespace, model): (&Namespace, &str)) -> Value {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "namespace": namespace.name(), "dryRun": false,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {}, "object": asking("asks", model),
        },
    });
    let address = operator.logged_address("the webhook listens");
    let mut curl = tokio::process::Command::new("curl");
    let header = "content-type: application/json";
    curl.args(["--silent", "--insecure", "--header", header, "--data-binary", "@-"]);
    curl.arg(format!("https://{address}/inject"));
    let answer = programs::run(curl, review.to_string().as_bytes()).await;
    let answer: Value = serde_json::from_str(&answer.output).expect("it is a review");
    answer["response"].clone()
}

async fn is_served(world: &World, model: &str) -> bool {
    is_told(&world.get(MODELS, model).await) && !world.get("deployments", model).await.is_null()
}
