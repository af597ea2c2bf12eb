//! What decides a vector decides its key, and nothing else does.

use embark_sidecar::pb::client::{EmbedRequest, Source};
use embark_tests::{
    Manifest, Sidecar,
    manifest::sha256,
    programs,
    sidecar::{Options, difference, request, sources},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn another_max_tokens_is_another_space() {
    let tiny = Manifest::tiny("tiny");
    parts(&tiny, &tiny.clone().with("/spec/input/text/maxTokens", 128)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_normalization_is_another_space() {
    let tiny = Manifest::tiny("tiny");
    parts(&tiny, &tiny.clone().with("/spec/model/output/normalization", "None")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_file_is_another_space_even_when_it_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(tiny_file("model.onnx")).unwrap();
    // ModelProto.producer_version, at the end: protobuf takes the last one.
    bytes.extend([0x1a, 1, b'x']);
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, bytes).unwrap();
    let source = json!({"uri": format!("file://{}", file.display()), "sha256": sha256(&file)});
    let tiny = Manifest::tiny("tiny");
    parts(&tiny, &tiny.clone().with("/spec/model/source", source)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tokenizer_file_is_another_space() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = std::fs::read_to_string(tiny_file("tokenizer.json")).unwrap();
    text.push('\n');
    let file = folder.path().join("tokenizer.json");
    std::fs::write(&file, text).unwrap();
    let source = json!({"uri": "file://tokenizer.json", "sha256": sha256(&file)});
    let tiny = Manifest::tiny("tiny");
    let other = tiny.clone().with("/spec/input/text/tokenizer", source);
    // Relative to the manifest, which is written into the same folder.
    parts_in(folder.path(), &tiny, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pooling_is_another_space() {
    let minilm = |pooling| Manifest::minilm("minilm").pooled_outside(pooling);
    parts(&minilm("Mean"), &minilm("CLS")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decides_no_vector_keeps_the_space_and_the_hit() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Manifest::tiny("tiny");
    let options = Options::new(folder.path(), &tiny);
    let sidecar = Sidecar::start(&options).await;
    let space = sidecar.space().await;
    sidecar.embed(&["a"]).await;
    sidecar.stop().await;

    let same_file = format!("file://{}", tiny_file("model.onnx").display());
    let other = tiny
        .with("/spec/model/source/uri", same_file)
        .with("/spec/model/sizeLimit", "1Gi")
        .with("/spec/cache", json!({"ttl": "1h", "memory": {"sizeLimit": "4Mi"}}))
        .with("/spec/input/text/sizeLimit", "1Ki")
        .with("/spec/batching", json!({"maxItems": 8}));
    let sidecar = Sidecar::start(&options.with(&other)).await;
    assert_eq!(sidecar.space().await, space);
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitDisk]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_a_prompt_is_in_the_key_and_its_name_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = |name: &str, prefix: &str| {
        Manifest::tiny("tiny")
            .with("/spec/input/text/prompts", json!([{"name": name, "prefix": prefix}]))
    };
    let of = |name: &str, text| EmbedRequest { prompt: name.to_owned(), ..request(&[text]) };
    let options = Options::new(folder.path(), &prompt("query", "query: "));
    let sidecar = Sidecar::start(&options).await;
    let prompted = sidecar.call(of("query", "x")).await.unwrap();
    let plain = sidecar.call(request(&["x"])).await.unwrap();
    let joined = sidecar.call(request(&["query: x"])).await.unwrap();
    for reply in [&prompted, &plain, &joined] {
        assert_eq!(reply.space_id, prompted.space_id);
        assert_eq!(sources(&reply.results), [Source::Computed]);
    }
    let vectors = [&prompted, &plain, &joined].map(|reply| &reply.results[0].vector);
    assert!(difference(vectors[0], vectors[1]) > 1e-3);
    assert!(difference(vectors[0], vectors[2]) <= 1e-5);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options.with(&prompt("renamed", "query: "))).await;
    let renamed = sidecar.call(of("renamed", "x")).await.unwrap();
    assert_eq!(sources(&renamed.results), [Source::HitDisk]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options.with(&prompt("query", "find: "))).await;
    let other = sidecar.call(of("query", "x")).await.unwrap();
    assert_eq!(other.space_id, prompted.space_id);
    assert_eq!(sources(&other.results), [Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_prompt_stands_where_a_request_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = json!([{"name": "query", "prefix": "query: "}, {"name": "plain", "prefix": ""}]);
    let manifest = Manifest::tiny("tiny")
        .with("/spec/input/text/prompts", prompts)
        .with("/spec/input/text/defaultPrompt", "query");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let of = |name: &str| EmbedRequest { prompt: name.to_owned(), ..request(&["x"]) };
    let default = sidecar.call(of("")).await.unwrap();
    let named = sidecar.call(of("query")).await.unwrap();
    let plain = sidecar.call(of("plain")).await.unwrap();
    assert_eq!(sources(&default.results), [Source::Computed]);
    assert_eq!(sources(&named.results), [Source::HitMemory]);
    assert_eq!(sources(&plain.results), [Source::Computed]);
    assert!(difference(&default.results[0].vector, &plain.results[0].vector) > 1e-3);
    let model = sidecar.model("").await.unwrap();
    assert_eq!(model.prompts, ["query", "plain"]);
    assert_eq!(model.default_prompt, "query");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_dimensions_cut_the_cached_vector_and_renormalise_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    let of = |dimensions| EmbedRequest { dimensions, ..request(&["a text"]) };
    let short = sidecar.call(of(32)).await.unwrap();
    let full = sidecar.call(of(0)).await.unwrap();
    assert_eq!((short.dimensions, full.dimensions), (32, 128));
    assert_eq!(sources(&short.results), [Source::Computed]);
    assert_eq!(sources(&full.results), [Source::HitMemory]);
    let vector = &full.results[0].vector;
    assert!(difference(&short.results[0].vector, &unit(&vector[..32])) <= 1e-6);
    assert_eq!(sidecar.call(of(128)).await.unwrap().results[0].vector, *vector);
    sidecar.stop().await;

    let cut = Manifest::tiny("tiny").with("/spec/model/output/truncateDimensions", 64);
    let sidecar = Sidecar::start(&options.with(&cut)).await;
    let default = sidecar.call(of(0)).await.unwrap();
    assert_eq!((default.dimensions, &default.space_id), (64, &full.space_id));
    assert_eq!(sources(&default.results), [Source::HitDisk]);
    assert!(difference(&default.results[0].vector, &unit(&vector[..64])) <= 1e-6);
    assert_eq!(sidecar.call(of(128)).await.unwrap().results[0].vector, *vector);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_dimensions_of_a_model_that_does_not_normalise_are_its_first_values() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Manifest::tiny("tiny").with("/spec/model/output/normalization", "None");
    let sidecar = Sidecar::serve(folder.path(), &plain).await;
    let full = sidecar.embed(&["a text"]).await;
    let short = EmbedRequest { dimensions: 5, ..request(&["a text"]) };
    let short = sidecar.call(short).await.unwrap();
    assert_eq!(short.results[0].vector, full[0].vector[..5]);
    assert!(!sidecar.model("").await.unwrap().normalized);
    sidecar.stop().await;
}

/// Checks that the second model, in place of the first, has another space and none of its entries.
async fn parts(first: &Manifest, second: &Manifest) {
    let folder = tempfile::tempdir().unwrap();
    parts_in(folder.path(), first, second).await;
}

async fn parts_in(folder: &std::path::Path, first: &Manifest, second: &Manifest) {
    let options = Options::new(folder, first);
    let sidecar = Sidecar::start(&options).await;
    let before = sidecar.call(request(&["a text"])).await.unwrap();
    assert_eq!(sources(&before.results), [Source::Computed]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options.with(second)).await;
    let after = sidecar.call(request(&["a text"])).await.unwrap();
    assert_ne!(before.space_id, after.space_id);
    assert_eq!(sources(&after.results), [Source::Computed]);
    sidecar.stop().await;

    // Its entries went when another took its place.
    let sidecar = Sidecar::start(&options.with(first)).await;
    let again = sidecar.call(request(&["a text"])).await.unwrap();
    assert_eq!(again.space_id, before.space_id);
    assert_eq!(sources(&again.results), [Source::Computed]);
    assert!(difference(&again.results[0].vector, &before.results[0].vector) <= 1e-6);
    sidecar.stop().await;
}

fn unit(values: &[f32]) -> Vec<f32> {
    let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.iter().map(|v| v / length).collect()
}

fn tiny_file(name: &str) -> std::path::PathBuf {
    programs::root().join("examples/models/tiny-static-minilm").join(name)
}
