//! What is built of models, on a real API server: every feature, taken as it is and once, and nothing of somebody else's.

mod contracts;
pub(super) mod monitors;
pub(super) mod taken;

use std::{collections::BTreeMap, fs};

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    operator::Operator,
    programs,
    sidecar::until,
};
use serde_json::{Value, json};

use super::operator::{APPLIES, get, patch, quickstart, settled, start};

/// Models of a test that counts requests.
const MANY: usize = 8;
/// What a model that comes to be may cost.
const REQUESTS: usize = 15;

#[tokio::test]
async fn every_feature_is_taken_as_it_is_and_applied_once() {
    let (namespace, alone) = start("features").await;
    let kind = monitors::Kind::define(namespace.plane()).await;
    let names = apply_every_feature(&namespace).await;
    for name in &names {
        until("the operator has applied it", async || reason(&namespace, name).await.is_some())
            .await;
        let reason = reason(&namespace, name).await.unwrap();
        // Who names an account that is not there has no pods.
        let reasons = ["RollingOut", "PodsRefused"];
        assert!(reasons.contains(&reason.as_str()), "{name}: {reason}");
    }
    for name in &names {
        until("nothing is left to apply", async || {
            let applied = alone.operator.metric(APPLIES).await;
            alone.operator.reconciles(&namespace, name).await;
            alone.operator.metric(APPLIES).await <= applied
        })
        .await;
    }
    kind.remove(namespace.plane()).await;
    alone.stop().await;
}

#[tokio::test]
async fn network_policy_is_put_back_when_edited_and_goes_when_it_is_not_asked_for() {
    let (namespace, alone) = start("policy").await;
    let peer = json!({"podSelector": {"matchLabels": {"app": "search"}}});
    let asked = quickstart(&json!({"networkPolicy": {"from": [peer]}}));
    namespace.apply(&asked).await.unwrap();
    settled(&namespace).await;
    let policy = "networkpolicy/quickstart";
    let ports = |rule: &Value| -> Vec<i64> {
        let ports = rule["ports"].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_i64().unwrap()).collect()
    };
    let made = get(&namespace, policy).await["spec"]["ingress"].clone();
    assert_eq!((ports(&made[0]), ports(&made[1])), (vec![8080, 8081], vec![8082]));
    assert_eq!(made[0]["from"], json!([peer]));
    assert!(made[1].get("from").is_none(), "{made}");
    for edit in [
        json!([{"op": "add", "path": "/spec/ingress/-", "value": {}}]),
        json!([{"op": "add", "path": "/spec/ingress/0/from/-", "value": {"namespaceSelector": {}}}]),
        json!([{"op": "replace", "path": "/spec/ingress/0/ports/0/port", "value": 1}]),
    ] {
        patch(&namespace, policy, "json", &edit).await;
        until("it is as it was", async || get(&namespace, policy).await["spec"]["ingress"] == made)
            .await;
    }
    namespace.apply(&quickstart(&json!({"networkPolicy": {"from": []}}))).await.unwrap();
    until("nobody is let in", async || {
        let ingress = get(&namespace, policy).await["spec"]["ingress"].clone();
        ingress.as_array().is_some_and(|rules| rules.len() == 1 && ports(&rules[0]) == [8082])
    })
    .await;
    let none = json!([{"op": "remove", "path": "/spec/networkPolicy"}]);
    patch(&namespace, "embm/quickstart", "json", &none).await;
    until("there is none", async || get(&namespace, policy).await.is_null()).await;
    alone.stop().await;
}

#[tokio::test]
async fn new_model_costs_few_requests() {
    // Of its own: what others ask of it would be counted too.
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("requests").await;
    let operator = Operator::start(&namespace).await;
    operator.wait_for_line("\"leading\"").await;
    let before = requests(namespace.plane()).await;
    for number in 0..MANY {
        let mut model = quickstart(&json!({}));
        model["metadata"]["name"] = format!("model-{number}").into();
        namespace.apply(&model).await.unwrap();
    }
    until("every pod is told of", async || {
        let told = ["get", "embm", "--output=jsonpath={.items[*].status.replicas}"];
        namespace.kubectl(told).await.split_whitespace().filter(|count| *count == "1").count()
            == MANY
    })
    .await;
    let mut after = requests(namespace.plane()).await;
    until("the operator rests", async || {
        let now = requests(namespace.plane()).await;
        std::mem::replace(&mut after, now.clone()) == now
    })
    .await;
    let grown: BTreeMap<&str, usize> = after
        .iter()
        .map(|(name, count)| (name.as_str(), count - before.get(name).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    eprintln!("requests of {MANY} models: {grown:?}");
    // Accounts, three ConfigMaps, two Services, the Deployment and its replicas, the budget.
    for (request, count) in [
        ("APPLY serviceaccounts/", MANY),
        ("APPLY configmaps/", 3 * MANY),
        ("APPLY services/", 2 * MANY),
        ("APPLY deployments/", 2 * MANY),
        ("APPLY poddisruptionbudgets/", MANY),
    ] {
        assert!(grown.get(request).is_some_and(|found| *found >= count), "{request}: {grown:?}");
    }
    assert!(grown.values().sum::<usize>() <= REQUESTS * MANY, "{grown:?}");
    operator.stop().await;
}

/// What the API server has counted of what the operator may have asked, by verb and resource.
async fn requests(plane: &ControlPlane) -> BTreeMap<String, usize> {
    let text = plane.kubectl(["get", "--raw", "/metrics"]).await;
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap_or_default();
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        let (verb, resource) = (label("verb"), label("resource"));
        let is_event = verb == "POST" && label("group") == "events.k8s.io";
        let is_looked_for = ["configmaps", "poddisruptionbudgets"].contains(&resource.as_str());
        let is_ours = verb == "APPLY" && resource != "customresourcedefinitions";
        if is_ours || is_event || verb == "GET" && is_looked_for {
            // They are whole numbers as long as they have few digits.
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok());
            let request = format!("{verb} {resource}/{}", label("subresource"));
            *counts.entry(request).or_default() += count.expect("it is a count");
        }
    }
    counts
}

/// Applies the models of every golden, and gives their names.
async fn apply_every_feature(namespace: &Namespace) -> Vec<String> {
    let mut names = Vec::new();
    for case in fs::read_dir(programs::root().join("operator/tests/golden")).unwrap() {
        let text = fs::read_to_string(case.unwrap().path().join("model.yaml")).unwrap();
        let manifest = embark_crds::manifest::read(&text).unwrap().remove(0);
        let model = json!({
            "apiVersion": "embark.dev/v1alpha1",
            "kind": "EmbeddingModel",
            "metadata": { "name": manifest.metadata.name },
            "spec": manifest.spec,
        });
        namespace.apply(&model).await.unwrap();
        names.push(manifest.metadata.name);
    }
    names
}

/// The reason of a model's condition Ready, once it was told of its present generation.
async fn reason(namespace: &Namespace, name: &str) -> Option<String> {
    let model = get(namespace, &format!("embm/{name}")).await;
    if model["status"]["observedGeneration"] != model["metadata"]["generation"] {
        return None;
    }
    let mut conditions = model["status"]["conditions"].as_array()?.iter();
    let ready = conditions.find(|condition| condition["type"] == "Ready")?;
    Some(ready["reason"].as_str()?.to_owned())
}
