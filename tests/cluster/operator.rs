//! The operator's manners, by a real API server, with the permissions of the chart.

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    operator::Alone,
    programs,
    sidecar::until,
};
use serde_json::{Value, json};

/// What a model is made into, in kubectl's words.
const KINDS: &str =
    "serviceaccounts,configmaps,services,deployments,horizontalpodautoscalers,poddisruptionbudgets";

/// Models of one test, as many as are reconciled at a time.
const MANY: usize = 8;

/// Children that were applied.
pub(super) const APPLIES: &str = "embark_operator_applies_total";

#[tokio::test]
async fn second_reconcile_changes_no_child() {
    let (namespace, alone) = start("noop").await;
    apply_quickstart(&namespace).await;
    let children = settled(&namespace).await;
    let names: Vec<&str> = children.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    for part in
        ["configmap/quickstart-contract", "deployment/quickstart", "service/quickstart-pods"]
    {
        assert!(names.iter().any(|name| name.starts_with(part)), "{part}: {names:?}");
    }
    until("nothing is left to apply", async || {
        let applied = alone.operator.metric(APPLIES).await;
        alone.operator.reconciles(&namespace, "quickstart").await;
        alone.operator.metric(APPLIES).await <= applied
    })
    .await;
    assert_eq!(settled(&namespace).await, children);
    alone.stop().await;
}

#[tokio::test]
async fn model_that_is_deleted_leaves_nothing() {
    let (namespace, alone) = start("deleted").await;
    apply_quickstart(&namespace).await;
    settled(&namespace).await;
    namespace.kubectl(["delete", "embm/quickstart"]).await;
    until("no child is left", async || children(&namespace).await.is_empty()).await;
    alone.stop().await;
}

#[tokio::test]
async fn edited_field_of_ours_is_put_back_and_what_others_add_stays() {
    let (namespace, alone) = start("edited").await;
    apply_quickstart(&namespace).await;
    settled(&namespace).await;
    namespace.kubectl(["label", "service/quickstart", "example.com/team=search"]).await;
    let port = json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 9999}]);
    patch(&namespace, "service/quickstart", "json", &port).await;
    let image = json!([
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "localhost/x"}
    ]);
    patch(&namespace, "deployment/quickstart", "json", &image).await;
    namespace.kubectl(["delete", "configmap/quickstart-policy"]).await;
    until("it is as it was", async || {
        let service = get(&namespace, "service/quickstart").await;
        let deployment = get(&namespace, "deployment/quickstart").await;
        let policy = namespace.plane().try_kubectl(
            ["--namespace", namespace.name(), "get", "configmap/quickstart-policy"],
            "",
        );
        service["spec"]["ports"][0]["port"] == 8081
            && deployment["spec"]["template"]["spec"]["containers"][0]["image"]
                == "localhost/embark-sidecar:test"
            && policy.await.code == 0
    })
    .await;
    let service = get(&namespace, "service/quickstart").await;
    assert_eq!(service["metadata"]["labels"]["example.com/team"], "search");
    // What is put back is owned by what was applied, and by nothing that would outlive it.
    let owners = ["get", "service/quickstart", "--show-managed-fields", "--output=json"];
    let service: Value = serde_json::from_str(&namespace.kubectl(owners).await).unwrap();
    let owners = service["metadata"]["managedFields"].as_array().unwrap();
    let ours = owners.iter().filter(|owner| owner["manager"] == "embark-operator");
    assert!(ours.into_iter().all(|owner| owner["operation"] == "Apply"), "{owners:?}");
    alone.stop().await;
}

#[tokio::test]
async fn replicas_are_the_autoscalers_as_long_as_there_is_one() {
    let (namespace, alone) = start("replicas").await;
    let autoscaled = quickstart(&json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 5}}));
    namespace.apply(&autoscaled).await.unwrap();
    settled(&namespace).await;
    until("it begins with the least", async || replicas(&namespace).await == 2).await;
    let autoscaler = get(&namespace, "hpa/quickstart").await;
    assert_eq!(autoscaler["spec"]["metrics"][0]["type"], "ContainerResource");
    // As the autoscaler's controller does it.
    namespace.kubectl(["scale", "deployment/quickstart", "--replicas=4"]).await;
    let mut changed = autoscaled.clone();
    changed["spec"]["cache"]["ttl"] = "1h".into();
    namespace.apply(&changed).await.unwrap();
    alone.operator.reconciles(&namespace, "quickstart").await;
    settled(&namespace).await;
    assert_eq!(replicas(&namespace).await, 4);
    alone.stop().await;
    let alone = Alone::start(&namespace).await;
    alone.operator.reconciles(&namespace, "quickstart").await;
    settled(&namespace).await;
    assert_eq!(replicas(&namespace).await, 4);
    // Without it they are the spec's, and kubectl scale sets those.
    namespace.apply(&quickstart(&json!({"replicas": 3}))).await.unwrap();
    until("the autoscaler is gone", async || {
        !children(&namespace).await.iter().any(|(name, _)| name.starts_with("horizontal"))
    })
    .await;
    until("they are the spec's", async || replicas(&namespace).await == 3).await;
    namespace.kubectl(["scale", "embm/quickstart", "--replicas=1"]).await;
    until("they are what was set", async || replicas(&namespace).await == 1).await;
    alone.stop().await;
}

#[tokio::test]
async fn spec_that_no_schema_can_refuse_is_refused_in_words_and_touches_nothing() {
    let (namespace, alone) = start("refused").await;
    apply_quickstart(&namespace).await;
    let children = settled(&namespace).await;
    let file = json!({"model": {"source": {"uri": "file://model.onnx"}}});
    namespace.apply(&quickstart(&file)).await.unwrap();
    let wait = ["wait", "--for=condition=Accepted=False", "embm/quickstart", "--timeout=60s"];
    namespace.kubectl(wait).await;
    for type_ in ["Accepted", "Ready"] {
        let condition = condition(&namespace, type_).await;
        assert_eq!(condition["reason"], "Invalid");
        let message = condition["message"].as_str().unwrap();
        assert!(message.starts_with("spec.model.source.uri: \"file://model.onnx\""), "{message}");
    }
    until("an event tells of it", async || {
        namespace.kubectl(["describe", "embm/quickstart"]).await.contains("Warning  Invalid")
    })
    .await;
    assert_eq!(settled(&namespace).await, children);
    alone.stop().await;
}

#[tokio::test]
async fn child_of_somebody_else_is_never_taken() {
    let (namespace, alone) = start("taken").await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "quickstart"},
        "spec": {"ports": [{"port": 1}]},
    });
    namespace.apply(&service).await.unwrap();
    apply_quickstart(&namespace).await;
    until("it is said", async || condition(&namespace, "Ready").await["reason"] == "NameTaken")
        .await;
    let message = condition(&namespace, "Ready").await["message"].clone();
    let expected = "Service quickstart is there already and belongs to nobody known";
    assert!(message.as_str().unwrap().starts_with(expected), "{message}");
    assert_eq!(get(&namespace, "service/quickstart").await["spec"]["ports"][0]["port"], 1);
    namespace.kubectl(["delete", "service/quickstart"]).await;
    until("the operator goes on", async || {
        get(&namespace, "service/quickstart").await["spec"]["ports"][0]["port"] == 8081
    })
    .await;
    alone.stop().await;
}

#[tokio::test]
async fn another_operator_waits_and_takes_over_at_once() {
    let (namespace, alone) = start("lease").await;
    alone.operator.wait_for_line("\"leading\"").await;
    let other = alone.operator.another("other").await;
    other.wait_for_line("another replica leads").await;
    assert!(other.metric("embark_operator_leader").await < 0.5);
    assert_eq!(other.get("/ready").await.0, 200);
    let other = alone.hand_over(other).await;
    other.operator.wait_for_line("\"leading\"").await;
    let holder = "--output=jsonpath={.spec.holderIdentity}";
    assert_eq!(namespace.kubectl(["get", "lease", "embark-operator", holder]).await, "other");
    apply_quickstart(&namespace).await;
    settled(&namespace).await;
    other.stop().await;
    assert_eq!(namespace.kubectl(["get", "lease", "embark-operator", holder]).await, "");
}

#[tokio::test]
async fn models_that_changed_while_no_operator_ran_are_all_seen() {
    let (namespace, alone) = start("restarted").await;
    let alone = alone
        .restart(async {
            for model in 0..MANY {
                let mut manifest = quickstart(&json!({}));
                manifest["metadata"]["name"] = format!("model-{model}").into();
                namespace.apply(&manifest).await.unwrap();
            }
        })
        .await;
    until("each is seen", async || {
        let accepted = "--output=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].reason}";
        let accepted = namespace.kubectl(["get", "embm", accepted]).await;
        accepted.split_whitespace().count() == MANY
    })
    .await;
    alone.stop().await;
}

pub(super) async fn start(prefix: &str) -> (Namespace, Alone) {
    let namespace = ControlPlane::shared().await.namespace(prefix).await;
    let alone = Alone::start(&namespace).await;
    (namespace, alone)
}

pub(super) async fn apply_quickstart(namespace: &Namespace) {
    namespace.apply(&quickstart(&json!({}))).await.unwrap();
}

/// The quick start with another spec on top.
pub(super) fn quickstart(patch: &Value) -> Value {
    let text = std::fs::read_to_string(programs::root().join("examples/quickstart.yaml")).unwrap();
    let manifest = embark_crds::manifest::read(&text).unwrap().remove(0);
    let mut model = json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": manifest.metadata.name },
        "spec": manifest.spec,
    });
    merge(&mut model["spec"], patch);
    model
}

fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            for (name, value) in patch {
                merge(&mut target[name.as_str()], value);
            }
        }
        value => *target = value.clone(),
    }
}

/// The children of the namespace's model with their resource versions, but those that Kubernetes itself keeps writing to:
/// of a Deployment the generation counts, which moves with its spec.
pub(super) async fn children(namespace: &Namespace) -> Vec<(String, String)> {
    let ours = "--selector=app.kubernetes.io/managed-by=embark-operator";
    let list = namespace.kubectl(["get", KINDS, ours, "--output=json"]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut children: Vec<(String, String)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| {
            let (kind, metadata) = (text(&child["kind"]).to_lowercase(), &child["metadata"]);
            let version = match kind.as_str() {
                "deployment" | "poddisruptionbudget" => "generation",
                "horizontalpodautoscaler" => "uid",
                _ => "resourceVersion",
            };
            (format!("{kind}/{}", text(&metadata["name"])), text(&metadata[version]))
        })
        .collect();
    children.sort();
    children
}

/// The children once the operator has said of the model's present generation how it is.
pub(super) async fn settled(namespace: &Namespace) -> Vec<(String, String)> {
    until("the operator has seen the model", async || {
        let model = get(namespace, "embm/quickstart").await;
        let ready = model["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == "Ready")
        });
        ready && model["status"]["observedGeneration"] == model["metadata"]["generation"]
    })
    .await;
    children(namespace).await
}

async fn replicas(namespace: &Namespace) -> i64 {
    get(namespace, "deployment/quickstart").await["spec"]["replicas"].as_i64().unwrap_or(-1)
}

pub(super) async fn condition(namespace: &Namespace, type_: &str) -> Value {
    let model = get(namespace, "embm/quickstart").await;
    let conditions = model["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

/// An object; null when there is none.
pub(super) async fn get(namespace: &Namespace, object: &str) -> Value {
    let arguments = ["--namespace", namespace.name(), "get", object, "--output=json"];
    let found = namespace.plane().try_kubectl(arguments, "").await;
    serde_json::from_str(&found.output).unwrap_or_default()
}

pub(super) async fn patch(namespace: &Namespace, object: &str, type_: &str, patch: &Value) {
    let (type_, patch) = (format!("--type={type_}"), patch.to_string());
    namespace.kubectl(["patch", object, &type_, "--patch", &patch]).await;
}
