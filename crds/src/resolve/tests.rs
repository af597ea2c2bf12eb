use proptest::prelude::*;

use super::*;
use crate::{contract::Location, digest::SpaceId, manifest};

fn spec_of(patch: &str) -> EmbeddingModelSpec {
    let digest = "0".repeat(64);
    let text = format!(
        r#"
apiVersion: embark.dev/v1alpha1
kind: EmbeddingModel
metadata: {{name: tiny}}
spec:
  model:
    source: {{uri: "builtin://tiny/model.onnx", sha256: "{digest}"}}
    output: {{dimensions: 4}}
{patch}"#
    );
    manifest::read(&text).unwrap().remove(0).spec
}

fn text_spec(more: &str) -> EmbeddingModelSpec {
    let digest = "1".repeat(64);
    spec_of(&format!(
        "  input:\n    text:\n      tokenizer: {{uri: \"builtin://tiny/tokenizer.json\", sha256: \"{digest}\"}}\n{more}"
    ))
}

fn image_spec(more: &str) -> EmbeddingModelSpec {
    spec_of(&format!("  input: {{image: {{width: 2, height: 3, {more}}}}}\n"))
}

fn good(spec: &EmbeddingModelSpec) -> Contract {
    resolve("tiny", spec, Target::Local).unwrap()
}

#[test]
fn the_minimal_spec_gets_every_default() {
    let Contract { serving, policy } = good(&text_spec(""));
    let Input::Text(text) = &serving.input else { panic!("a text model") };
    assert_eq!((text.max_tokens, text.size_limit), (256, 256 * 1024));
    assert_eq!(
        (text.overlong, text.pooling),
        (contract::Overlong::Truncate, contract::Pooling::None)
    );
    assert_eq!(serving.artifact_size_limit, 2 << 30);
    assert_eq!(serving.output.default_dimensions.get(), 4);
    assert_eq!(serving.output.normalization, contract::Normalization::L2);
    assert_eq!(
        serving.cache,
        CacheStorage {
            mode: contract::CacheMode::MemoryAndDisk,
            memory_bytes: 128 << 20,
            disk_bytes: 2 << 30
        }
    );
    assert_eq!(
        serving.batching,
        Batching {
            max_items: 32,
            max_tokens: 4096,
            max_duration: Duration::from_millis(50),
            max_delay: Duration::ZERO,
            queue_max_items: 4096,
            queue_max_tokens: 262_144,
        }
    );
    assert_eq!((serving.self_test.len(), serving.endpoint), (0, None));
    assert_eq!(
        policy,
        CachePolicy {
            version: contract::VERSION,
            ttl: Duration::from_secs(24 * 3600),
            ttl_jitter_percent: 10,
            stale_while_revalidate: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            on_miss: contract::OnMiss::Wait,
            wait_budget: None,
            default_vector: DefaultVector::Zero,
            epoch: 0,
            allow_invalidation: false,
        }
    );
}

#[test]
fn an_absent_block_and_an_empty_one_mean_the_same() {
    let empty = "  cache: {memory: {}, disk: {}, defaultVector: {}}\n  batching: {queue: {}}\n  disruptionBudget: {}\n  pod: {}\n";
    assert_eq!(text_spec(empty), text_spec(""));
}

#[test]
fn every_kind_of_source_is_taken_apart() {
    let digest = "ab".repeat(32);
    let commit = "cd".repeat(20);
    let oci = format!("registry:5000/models/tiny@sha256:{digest}");
    let located = |uri: &str, path: Option<&str>, target| {
        let mut spec = text_spec("");
        spec.model.source.uri = uri.to_owned();
        spec.model.source.path = path.map(str::to_owned);
        resolve("tiny", &spec, target).unwrap().serving.model.location
    };
    let text = str::to_owned;
    assert_eq!(
        located("file://a/../b.onnx", None, Target::Local),
        Location::File { path: text("a/../b.onnx") }
    );
    assert_eq!(
        located("https://h/a?b=c", None, Target::Cluster),
        Location::Http { url: text("https://h/a?b=c") }
    );
    assert_eq!(
        located("gs://b/a/c.onnx", None, Target::Cluster),
        Location::ObjectStore { url: text("gs://b/a/c.onnx") }
    );
    assert_eq!(
        located(&format!("oci://{oci}"), Some("m.onnx"), Target::Local),
        Location::Oci { reference: oci, title: text("m.onnx") }
    );
    assert_eq!(
        located(&format!("hf://o/r@{commit}/d/m.onnx"), None, Target::Local),
        Location::Hf { repository: text("o/r"), revision: commit, file: text("d/m.onnx") }
    );
    assert_eq!(
        located("pvc://claim/d/m.onnx", None, Target::Cluster),
        Location::Pvc { claim: text("claim"), path: text("d/m.onnx") }
    );
}

#[test]
fn equal_numbers_make_equal_contracts_and_spaces() {
    let a = good(&image_spec("dtype: Float32, mean: [0, 1, -1], std: [2]"));
    let b = good(&image_spec("dtype: Float32, mean: [-0.0, 1.0, -1.0], std: [2.0, 2, 2e0]"));
    assert_eq!(a, b);
    assert_eq!(serde_json::to_string(&a).unwrap(), serde_json::to_string(&b).unwrap());
    assert_eq!(SpaceId::of(&a.serving), SpaceId::of(&b.serving));
    // The types may hold a negative zero that no manifest gives.
    let mut spec = image_spec("dtype: Float32, mean: [0, 0, 0]");
    let positive = good(&spec);
    spec.input.image.as_mut().unwrap().mean = vec![-0.0; 3];
    let negative = good(&spec);
    assert_eq!(
        serde_json::to_string(&negative).unwrap(),
        serde_json::to_string(&positive).unwrap()
    );
    assert_eq!(SpaceId::of(&negative.serving), SpaceId::of(&positive.serving));
}

#[test]
fn another_mean_is_another_space() {
    let a = good(&image_spec("dtype: Float32, mean: [0.5]"));
    let b = good(&image_spec("dtype: Float32, mean: [0.25]"));
    assert_ne!(SpaceId::of(&a.serving), SpaceId::of(&b.serving));
}

#[test]
fn a_contract_survives_json() {
    let selftest = "  selfTest: [{input: {text: a}, vector: [0.1, 0, 0, 1], minCosine: \"0.80\"}, {input: {text: a}, similarTo: {text: b}, minCosine: \"-0\"}]\n";
    let contract = good(&text_spec(selftest));
    let json = serde_json::to_string(&contract).unwrap();
    assert_eq!(serde_json::from_str::<Contract>(&json).unwrap(), contract);
    assert!((contract.serving.self_test[0].min_cosine - 0.8).abs() < 1e-12);
}

#[test]
fn typed_specs_are_bounded_like_manifests() {
    let mut spec = text_spec("");
    spec.replicas = -1;
    spec.cache.ttl = DurationText::from("soon");
    spec.cache.memory.size_limit = Quantity::from("1");
    spec.input.text.as_mut().unwrap().max_tokens = u32::MAX;
    let errors = resolve("Tiny", &spec, Target::Cluster).unwrap_err();
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    for field in [
        "spec.replicas",
        "spec.cache.ttl",
        "spec.cache.memory.sizeLimit",
        "spec.input.text.maxTokens",
        "metadata.name",
    ] {
        assert!(fields.contains(&field), "{field} not in {fields:?}");
    }
}

#[test]
fn a_spec_of_too_many_bytes_is_refused() {
    let mut spec = text_spec("");
    let prompt = |i: usize| v1alpha1::Prompt { name: format!("p{i}"), prefix: "é".repeat(2048) };
    spec.input.text.as_mut().unwrap().prompts = (0..32).map(prompt).collect();
    let errors = resolve("tiny", &spec, Target::Local).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("spec: has "), "{}", errors[0]);
}

proptest! {
    #[test]
    fn no_uri_makes_it_panic(uri in "(builtin|http|https|s3|oci|hf|pvc|file|x)://\\PC{0,60}", local in any::<bool>()) {
        let mut spec = text_spec("");
        spec.model.source.uri = uri;
        let target = if local { Target::Local } else { Target::Cluster };
        let _ = resolve("tiny", &spec, target);
    }

    #[test]
    fn no_texts_make_it_panic(name in "\\PC{0,50}", ttl in "\\PC{0,20}", size in "\\PC{0,20}") {
        let mut spec = text_spec("");
        spec.cache.ttl = DurationText(ttl);
        spec.model.size_limit = Quantity(size);
        let _ = resolve(&name, &spec, Target::Local);
    }
}
