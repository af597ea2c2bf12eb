//! Models that no schema of today would let in, stored when it was looser.

use embark_tests::{
    cluster::ControlPlane,
    operator::{Operator, apply_definition},
    sidecar::until,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::world::{MODELS, STATUS, World, model};

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
        (object("number", json!({"model": 7})), "invalid type: integer `7`"),
        (specless, "missing field `spec`"),
        (object("deep", json!({"input": [[[["text"]]]]})), "invalid type"),
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
        let object = json!({"model": 8});
        let mut object_ = model("probe", &json!({}));
        object_["spec"] = object;
        world.create(MODELS, &object_).await.is_err() || {
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
        for type_ in ["Accepted", "Ready"] {
            until(&format!("{name} is told of"), async || {
                let condition = world.condition(name, type_).await;
                condition["status"] == "False"
            })
            .await;
            let message = world.condition(name, type_).await["message"].clone();
            assert!(message.as_str().unwrap().contains(words), "{name}: {message}");
        }
    }
    assert!(
        world
            .children()
            .await
            .iter()
            .all(|(_, child)| { child["metadata"]["labels"][crate::world::INSTANCE] == "good" })
    );
    // Mended, it is a model like any other.
    let mended = json!({"spec": model("number", &json!({}))["spec"]});
    world.merge(MODELS, "number", &mended).await.unwrap();
    until("the mended one is built", async || !world.get("deployments", "number").await.is_null())
        .await;
    // Told once: nobody is told again what is known.
    let mark = proxy.mark();
    let again = operator.another_through(&proxy, "again").await;
    operator.stop().await;
    until("each is reconciled", async || again.reconciles().await >= 5.0).await;
    let told = proxy.writes(mark, world.namespace());
    assert!(told.iter().all(|write| write.resource == STATUS && write.name != "good"), "{told:?}");
    again.stop().await;
}

async fn replace_schema(definitions: &Api<CustomResourceDefinition>, schema: JSONSchemaProps) {
    let mut definition = definitions.get(DEFINITION).await.unwrap();
    let version = &mut definition.spec.versions[0];
    version.schema.as_mut().unwrap().open_api_v3_schema = Some(schema);
    definitions.replace(DEFINITION, &PostParams::default(), &definition).await.unwrap();
}
