//! The CustomResourceDefinition as people meet it, by kubectl.

use embark_crds::{
    digest::SpaceId,
    resolve::{Target, resolve},
    v1alpha1::EmbeddingModel,
};
use embark_tests::{
    cluster::{ControlPlane, Namespace},
    operator::apply_definition,
    programs,
};
use kube::api::PostParams;
use serde_json::{Value, json};

#[tokio::test]
async fn definition_is_applied_twice_and_explained() {
    let plane = ControlPlane::shared().await;
    apply_definition(plane).await;
    apply_definition(plane).await;
    let explained = plane.kubectl(["explain", "embm.spec.cache.staleWhileRevalidate"]).await;
    assert!(explained.contains("FIELD: staleWhileRevalidate <string>"), "{explained}");
    let whole = plane.kubectl(["explain", "embm", "--recursive"]).await;
    assert!(whole.contains("ttlJitterPercent") && whole.contains("allowedCIDRs"), "{whole}");
    let categories = plane.kubectl(["api-resources", "--categories=embark", "--no-headers"]).await;
    assert!(categories.contains("embeddingmodels") && categories.contains("embm"), "{categories}");
}

#[tokio::test]
async fn columns_tell_what_people_look_for() {
    let namespace = namespace("columns").await;
    namespace.apply(&model(&json!({}))).await.unwrap();
    let table = namespace.kubectl(["get", "embm"]).await;
    let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "READY", "REPLICAS", "DIM", "HIT%", "ADDRESS", "AGE"]);
    let wide = namespace.kubectl(["get", "embm", "--output=wide"]).await;
    // How wide they are depends on whether the operator has filled them already.
    let columns: Vec<&str> = wide.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns[7..], ["DIGEST", "SPACE"]);
}

#[tokio::test]
async fn unknown_field_is_refused_by_name() {
    let namespace = namespace("strict").await;
    let error = namespace.apply(&model(&json!({"cahce": {}}))).await.unwrap_err();
    assert!(error.contains("unknown field \"spec.cahce\""), "{error}");
}

#[tokio::test]
async fn kubectl_scale_sets_replicas() {
    let namespace = namespace("scale").await;
    namespace.apply(&model(&json!({}))).await.unwrap();
    namespace.kubectl(["scale", "embm/quickstart", "--replicas=3"]).await;
    let replicas = "--output=jsonpath={.spec.replicas}";
    assert_eq!(namespace.kubectl(["get", "embm/quickstart", replicas]).await, "3");
}

#[tokio::test]
async fn numbers_and_their_space_come_back_as_they_went() {
    let namespace = namespace("numbers").await;
    let values: Vec<f64> = (0..128).map(|i| f64::from(i) / 3.0 * 1e-3).collect();
    let image = json!({
        "input": {"text": null, "image": {
            "width": 224, "height": 224, "dtype": "Float32",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        }},
        "cache": {"defaultVector": {"type": "Values", "values": values}},
    });
    let api = namespace.api::<EmbeddingModel>().await;
    let mut sent: EmbeddingModel = serde_json::from_value(without_nulls(model(&image))).unwrap();
    let created = api.create(&PostParams::default(), &sent).await.unwrap();
    let back = api.get("quickstart").await.unwrap();
    assert_eq!(created.spec, back.spec);
    sent.spec = serde_json::from_value(serde_json::to_value(&sent.spec).unwrap()).unwrap();
    let contract = |model: &EmbeddingModel| {
        resolve("quickstart", &model.spec, Target::Cluster).expect("it is good")
    };
    assert_eq!(contract(&back).policy_json(), contract(&sent).policy_json());
    assert_eq!(SpaceId::of(&contract(&back).serving), SpaceId::of(&contract(&sent).serving));
}

async fn namespace(prefix: &str) -> Namespace {
    let plane = ControlPlane::shared().await;
    apply_definition(plane).await;
    plane.namespace(prefix).await
}

/// The quick start as people write it, with another spec on top.
fn model(patch: &Value) -> Value {
    let text = std::fs::read_to_string(programs::root().join("examples/quickstart.yaml")).unwrap();
    let manifest = embark_crds::manifest::read(&text).unwrap().remove(0);
    let mut model = json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": "quickstart" },
        "spec": manifest.spec,
    });
    for (name, value) in patch.as_object().unwrap() {
        match (model["spec"].get_mut(name).and_then(Value::as_object_mut), value.as_object()) {
            (Some(old), Some(new)) => old.extend(new.clone()),
            _ => model["spec"][name.as_str()] = value.clone(),
        }
    }
    model
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        other => other,
    }
}
