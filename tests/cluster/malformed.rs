//! Models that no schema of today would let in, stored when it was looser.

use embark_tests::{
    api_proxy::{Call, Verb},
    cluster::ControlPlane,
    operator::{Operator, apply_definition},
    sidecar::until,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::world::{INSTANCE, MODELS, World, is_told, lines, model};

const DEFINITION: &str = "embeddingmodels.embark.dev";

/// What was stored, and a word of what is said of it.
fn malformed() -> [(Value, &'static str); 4] {
    let object = |name: &str, spec: Value| {
        let mut object = model(name, &json!({}));
        object["spec"] = spec;
        object
    };
    let mut specless = object("specless", Value::Null);
    specless.as_object_mut().unwrap().remove("spec");
    let long = "x".repeat(60);
    [
        (object("number", json!({"model": 7})), "Invalid type integer `7`"),
        (specless, "Missing field spec"),
        (object("deep", json!({"input": [[[["text"]]]]})), "Invalid type sequence"),
        (model(&long, &json!({})), "45 characters"),
    ]
}

#[tokio::test]
async fn malformed_models_stop_nobody_and_are_told() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("malformed").await;
    let world = World::of(&namespace).await;
    apply_definition(&plane).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client().await);
    let strict = definitions.get(DEFINITION).await.unwrap();
    let anything: JSONSchemaProps = serde_json::from_value(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    )
    .unwrap();
    let schema = |definition: &CustomResourceDefinition| {
        definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap()
    };
    replace_schema(&definitions, anything).await;
    for (object, _) in malformed() {
        // Another schema is in force a moment after it was accepted.
        until("it is stored", async || world.create(MODELS, &object).await.is_ok()).await;
    }
    replace_schema(&definitions, schema(&strict)).await;
    until("the schema is back", async || {
        let mut probe = model("probe", &json!({}));
        probe["spec"]["model"] = json!(8);
        world.create(MODELS, &probe).await.is_err() || {
            world.delete(MODELS, "probe").await.unwrap();
            false
        }
    })
    .await;
    let (operator, proxy) = Operator::start_through_proxy(&namespace).await;
    world.model("good", &json!({})).await;
    until("the good one is built", async || !world.get("deployments", "good").await.is_null())
        .await;
    for (object, words) in malformed() {
        let name = object["metadata"]["name"].as_str().unwrap();
        until(&format!("{name} is told of"), async || is_told_of(&world, name, words).await).await;
    }
    let children = world.children().await;
    let of_good = |child: &Value| child["metadata"]["labels"][INSTANCE] == "good";
    assert!(children.iter().all(|(_, child)| of_good(child)), "{children:?}");
    // Mended, it is a model like any other.
    let mended = json!({"spec": model("number", &json!({}))["spec"]});
    world.merge(MODELS, "number", &mended).await.unwrap();
    until("the mended one is told of", async || is_told(&world.get(MODELS, "number").await)).await;
    until("the mended one is built", async || !world.get("deployments", "number").await.is_null())
        .await;
    // What cannot be mended by trying is not tried again and again.
    let mark = proxy.mark();
    let again = operator.another_through(&proxy, "again").await;
    operator.stop().await;
    until("each is reconciled", async || again.all_reconciles().await >= 5.0).await;
    let renewed = |call: &Call| call.is(Verb::Update, "leases") && call.code == 200;
    until("time has passed", async || proxy.since(mark, renewed).len() >= 4).await;
    let told = proxy.writes(mark, world.namespace());
    assert!(told.len() <= 3 * malformed().len(), "{}", lines(&told));
    assert!(told.iter().all(|write| write.name != "good"), "{}", lines(&told));
    again.stop().await;
}

/// Whether the status says so; or an event does, of an object that the API server takes no status of.
async fn is_told_of(world: &World, model: &str, words: &str) -> bool {
    let accepted = world.condition(model, "Accepted").await;
    let events = world
        .list("events")
        .await
        .into_iter()
        .filter(|event| event["regarding"]["name"] == model && event["type"] == "Warning");
    let mut said = events.map(|event| event["note"].clone()).chain([accepted["message"].clone()]);
    said.any(|said| said.as_str().is_some_and(|said| said.contains(words)))
}

async fn replace_schema(definitions: &Api<CustomResourceDefinition>, schema: JSONSchemaProps) {
    let mut definition = definitions.get(DEFINITION).await.unwrap();
    let version = &mut definition.spec.versions[0];
    version.schema.as_mut().unwrap().open_api_v3_schema = Some(schema);
    definitions.replace(DEFINITION, &PostParams::default(), &definition).await.unwrap();
}
