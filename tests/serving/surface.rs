//! What a client sees beside vectors: descriptions, health, reflection, the admin port, and how models are given.

use std::collections::{BTreeMap, BTreeSet};

use embark_sidecar::pb::client::{
    EmbedRequest, InputKind, ListModelsRequest, ModelState, OnMiss, Source,
};
use embark_tests::{
    Manifest, Sidecar,
    manifest::TINY_SHA256,
    refusal,
    sidecar::{Options, request, request_of, sources, until},
};
use prost::Message as _;
use prost_types::{
    FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use serde_json::json;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

const SYMBOL: &str = "embark.v1.ItemResult";

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_described_as_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::tiny("tiny")
        .with("/spec/input/text/prompts", json!([{"name": "query", "prefix": "query: "}]))
        .with("/spec/cache/ttl", "90m");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let model = sidecar.model("tiny").await.unwrap();
    assert_eq!((model.name.as_str(), model.state()), ("tiny", ModelState::Ready));
    assert_eq!((model.model_digest.as_str(), model.dimensions), (TINY_SHA256, 128));
    assert_eq!((model.input_kind(), model.max_tokens), (InputKind::Text, 256));
    assert_eq!((model.on_miss(), model.normalized), (OnMiss::Wait, true));
    assert_eq!(model.ttl.unwrap().seconds, 90 * 60);
    assert_eq!((model.message.as_str(), model.default_prompt.as_str()), ("", ""));
    assert_eq!(model.prompts, ["query"]);
    let limits = model.limits.unwrap();
    assert_eq!((limits.max_items, limits.max_item_bytes), (1024, 256 * 1024));

    let reply = sidecar.call(request(&["a"])).await.unwrap();
    assert_eq!((reply.space_id, reply.model_digest), (model.space_id.clone(), model.model_digest));
    assert!(model.space_id.len() == 64 && model.space_id.bytes().all(|b| b.is_ascii_hexdigit()));
    let unknown = sidecar.model("other").await.unwrap_err();
    refusal::of_field(&unknown, Code::NotFound, "MODEL_UNKNOWN", "model");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_name_means_the_only_model_and_nothing_among_several() {
    let folder = tempfile::tempdir().unwrap();
    let one = Options::new(folder.path(), &Manifest::tiny("one"));
    let sidecar = Sidecar::start(&one).await;
    assert_eq!(sidecar.model("").await.unwrap().name, "one");
    assert!(sidecar.call(request(&["a"])).await.is_ok());
    sidecar.stop().await;

    let mut two = one.clone();
    two.manifests.push(Manifest::tiny("two").write(folder.path()));
    let sidecar = Sidecar::start(&two).await;
    for refused in
        [sidecar.call(request(&["a"])).await.unwrap_err(), sidecar.model("").await.unwrap_err()]
    {
        let metadata = refusal::of_field(&refused, Code::NotFound, "MODEL_UNKNOWN", "model");
        assert!(metadata["allowed"].contains("one, two"), "{metadata:?}");
    }
    assert!(sidecar.call(request_of("two", &["a"])).await.is_ok());
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_from_several_documents_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    let (first, second) = (Manifest::tiny("first"), Manifest::tiny("second"));
    let both = folder.path().join("both.yaml");
    std::fs::write(&both, format!("{first}\n---\n{second}\n---\n")).unwrap();
    Manifest::tiny("third").write(&models);
    std::fs::write(models.join("fourth.json"), Manifest::tiny("fourth").to_string()).unwrap();
    std::fs::write(models.join("notes.txt"), "not a manifest").unwrap();
    let fifth = Manifest::tiny("fifth").write(folder.path());
    let options = Options {
        manifests: vec![both, models, fifth],
        data: folder.path().join("data"),
        ..Options::default()
    };
    let sidecar = Sidecar::start(&options).await;
    let listed = sidecar.embeddings().await.list_models(ListModelsRequest {}).await.unwrap();
    let names: Vec<String> = listed.into_inner().models.into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["fifth", "first", "fourth", "second", "third"]);
    for name in &names {
        let reply = sidecar.call(request_of(name, &["a"])).await.unwrap();
        assert_eq!(sources(&reply.results), [Source::Computed]);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_knows_the_process_its_services_and_each_model() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let mut health = HealthClient::new(sidecar.channel().await);
    for service in ["", "embark.v1.EmbeddingService", "embark.v1.CacheService", "tiny"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let serving = async || {
            let answer = health.clone().check(request.clone()).await.unwrap().into_inner();
            answer.status() == ServingStatus::Serving
        };
        // Health follows readiness, a moment behind.
        until(&format!("{service:?} is served"), serving).await;
    }
    let unknown = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(health.check(unknown.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(health.watch(unknown).await.unwrap_err().code(), Code::NotFound);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_v1_tells_of_the_public_messages() {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol(SYMBOL.to_owned())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(sidecar.channel().await);
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    vectors_are_floats(&files.file_descriptor_proto);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_v1alpha_tells_of_the_public_messages() {
    use v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol(SYMBOL.to_owned())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(sidecar.channel().await);
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    vectors_are_floats(&files.file_descriptor_proto);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_answers_probes_and_tells_the_status() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    sidecar.embed(&["a"]).await;
    assert_eq!(sidecar.get("/live").await.0, 200);
    assert_eq!(sidecar.get("/ready").await.0, 200);
    assert_eq!(sidecar.get("/nothing").await.0, 404);
    let status = sidecar.status().await;
    assert_eq!(status["ready"], true);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let model = sidecar.model_status("tiny").await;
    assert_eq!((&model["modelDigest"], &model["dimensions"]), (&json!(TINY_SHA256), &json!(128)));
    assert_eq!(model["spaceId"], sidecar.space().await);
    assert_eq!(model["cache"]["memory"]["entries"], 1);
    assert_eq!(model["cache"]["disk"]["state"], "healthy");
    assert_eq!(model["cache"]["disk"]["sizeLimit"], 2_u64 << 30);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_what_runs_cost_and_how_often_the_cache_answers() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let none = sidecar.model_status("tiny").await["cache"]["recent"].clone();
    assert_eq!(none, json!({"hits": 0, "items": 0}));
    for _ in 0..4 {
        sidecar.embed(&["a"]).await;
    }
    let model = sidecar.model_status("tiny").await;
    let recent = &model["cache"]["recent"];
    assert_eq!(recent, &json!({"hits": 3, "items": 4, "hitPercent": 75}));
    let costs = model["queue"]["costs"].as_array().unwrap();
    let one = costs.iter().find(|cost| cost["rows"] == 1).expect("one row was measured");
    assert!(one["microseconds"].as_u64().unwrap() > 0 && one["length"].as_u64().unwrap() > 0);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_well_formed_and_count_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    sidecar.embed(&["a", "b", "a"]).await;
    sidecar.embed(&["a"]).await;
    sidecar.embed(&["b", ""]).await;
    let wrong = EmbedRequest { prompt: "none".to_owned(), ..request(&["a"]) };
    assert!(sidecar.call(wrong).await.is_err());
    let (code, text) = sidecar.get("/metrics").await;
    assert_eq!(code, 200);
    let samples = parse(&text);
    let space = sidecar.space().await;
    for (sample, value) in [
        (r#"embark_items_total{model="tiny",source="computed"}"#.to_owned(), 2.0),
        (r#"embark_items_total{model="tiny",source="coalesced"}"#.to_owned(), 1.0),
        (r#"embark_items_total{model="tiny",source="hit_memory"}"#.to_owned(), 2.0),
        (r#"embark_items_total{model="tiny",source="hit_disk"}"#.to_owned(), 0.0),
        (r#"embark_item_errors_total{model="tiny",reason="TEXT_EMPTY"}"#.to_owned(), 1.0),
        (r#"embark_requests_total{model="tiny",reason="OK"}"#.to_owned(), 3.0),
        (r#"embark_requests_total{model="tiny",reason="PROMPT_UNKNOWN"}"#.to_owned(), 1.0),
        (r#"embark_model_ready{model="tiny"}"#.to_owned(), 1.0),
        (r#"embark_cache_entries{model="tiny"}"#.to_owned(), 2.0),
        (r#"embark_cache_healthy{model="tiny"}"#.to_owned(), 1.0),
        (
            format!(
                r#"embark_model_info{{model="tiny",digest="{TINY_SHA256}",space_id="{space}"}}"#
            ),
            1.0,
        ),
    ] {
        assert_eq!(samples.get(&sample), Some(&value), "{sample} in\n{text}");
    }
    sidecar.stop().await;
}

/// The samples of an exposition, by name and labels. Each has a type, a name of ours and a number.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "cut short");
    let mut types = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned()), "{name} is declared twice");
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(name.starts_with("embark_"), "{line}");
            let family = ["_total", "_bucket", "_sum", "_count", ""]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| types.contains(*family));
            assert!(family.is_some(), "no type of {line}");
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    samples
}

fn vectors_are_floats(files: &[Vec<u8>]) {
    let files = files.iter().map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap());
    let messages: Vec<_> = files.flat_map(|file| file.message_type).collect();
    let field = |message: &str, field: &str| {
        let message = messages.iter().find(|m| m.name() == message).unwrap();
        message.field.iter().find(|f| f.name() == field).unwrap().clone()
    };
    let vector = field("ItemResult", "vector");
    assert_eq!((vector.r#type(), vector.label()), (Type::Float, Label::Repeated));
    assert_eq!(field("Item", "text").r#type(), Type::String);
}
