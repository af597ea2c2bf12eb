//! Vectors over the wire against those of another runtime, in fixtures/golden.json.

use embark_sidecar::pb::client::ItemResult;
use embark_tests::{
    Manifest, Sidecar, programs,
    sidecar::{Options, cosine, difference, request_of},
};
use serde_json::Value;

/// How far a value or a cosine may be from the other runtime's.
const TOLERANCE: f64 = 1e-4;
/// How far a text's vector may be from that of the same text in a batch.
const SAME: f32 = 1e-5;

/// Texts of one to some sixty tokens, so that rows of a batch differ in length.
const COMPANY: [&str; 5] = [
    "a",
    "Rain.",
    "The quick brown fox jumps over the lazy dog, and nobody has ever asked the dog about it.",
    "embeddings",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age \
     of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season \
     of Light, it was the season of Darkness.",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_tiny_model_gives_the_golden_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    gives_the_goldens(&sidecar, "tiny", &golden("tiny-static-minilm")).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minilm_gives_the_golden_vectors_pooled_inside_and_outside_alone_and_in_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let uncached = |model: Manifest| model.with("/spec/cache/mode", "Disabled");
    let inside = uncached(Manifest::minilm("inside"));
    let outside = uncached(Manifest::minilm("outside").pooled_outside("Mean"));
    let mut options = Options::new(folder.path(), &inside);
    options.manifests.push(outside.write(folder.path()));
    let sidecar = Sidecar::start(&options).await;
    let golden = golden("minilm-l6-v2-fp32");
    for model in ["inside", "outside"] {
        gives_the_goldens(&sidecar, model, &golden).await;
        agrees_alone_and_in_a_batch(&sidecar, model).await;
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_text_alone_and_in_a_batch_agree() {
    let folder = tempfile::tempdir().unwrap();
    let uncached = Manifest::tiny("tiny").with("/spec/cache/mode", "Disabled");
    let sidecar = Sidecar::serve(folder.path(), &uncached).await;
    agrees_alone_and_in_a_batch(&sidecar, "tiny").await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_example_runs_as_it_is() {
    let options = Options {
        manifests: vec![programs::root().join("examples/quickstart.yaml")],
        data: tempfile::tempdir().unwrap().keep(),
        ..Options::default()
    };
    let sidecar = Sidecar::start(&options).await;
    gives_the_goldens(&sidecar, "quickstart", &golden("tiny-static-minilm")).await;
    sidecar.stop().await;
    std::fs::remove_dir_all(&options.data).unwrap();
}

/// The golden sentences have the golden vectors.
pub(crate) async fn gives_the_goldens(sidecar: &Sidecar, model: &str, golden: &Value) {
    let sentences: Vec<&str> =
        golden["sentences"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let reply = sidecar.call(request_of(model, &sentences)).await.unwrap();
    let [a, b, c] = reply.results.as_slice() else { panic!("{} results", reply.results.len()) };
    assert_eq!(a.vector.len(), reply.dimensions as usize);
    for (pair, expected) in
        [(a, b), (a, c), (b, c)].into_iter().zip(numbers(&golden["cosines_01_02_12"]))
    {
        let found = cosine(&pair.0.vector, &pair.1.vector);
        assert!((found - expected).abs() <= TOLERANCE, "{model}: cosine {found}, not {expected}");
    }
    starts_as(a, &golden["first8_of_sentence0"]);
    assert_eq!(a.tokens as usize, golden["input_ids_sentence0"].as_array().unwrap().len());
    assert!(!a.truncated);

    let overlong = &golden["overlong"];
    let times = overlong["times"].as_u64().unwrap();
    let text = overlong["repeated"].as_str().unwrap().repeat(usize::try_from(times).unwrap());
    let reply = sidecar.call(request_of(model, &[&text])).await.unwrap();
    starts_as(&reply.results[0], &overlong["first8"]);
    assert_eq!(u64::from(reply.results[0].tokens), overlong["max_tokens"].as_u64().unwrap());
    assert!(reply.results[0].truncated);
}

async fn agrees_alone_and_in_a_batch(sidecar: &Sidecar, model: &str) {
    let batch = sidecar.call(request_of(model, &COMPANY)).await.unwrap().results;
    for (text, together) in COMPANY.iter().zip(&batch) {
        let alone = sidecar.call(request_of(model, &[text])).await.unwrap().results;
        let apart = difference(&alone[0].vector, &together.vector);
        assert!(apart <= SAME, "{model}: {text:?} differs by {apart}");
        assert_eq!(alone[0].tokens, together.tokens);
    }
    let reversed: Vec<&str> = COMPANY.iter().rev().copied().collect();
    let again = sidecar.call(request_of(model, &reversed)).await.unwrap().results;
    for (one, other) in batch.iter().rev().zip(&again) {
        assert!(difference(&one.vector, &other.vector) <= SAME, "results are not in their order");
    }
}

fn starts_as(result: &ItemResult, golden: &Value) {
    for (index, expected) in numbers(golden).into_iter().enumerate() {
        let found = f64::from(result.vector[index]);
        assert!((found - expected).abs() <= TOLERANCE, "value {index} is {found}, not {expected}");
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The goldens of a model of texts.
pub(crate) fn golden(model: &str) -> Value {
    let file = programs::root().join("tests/fixtures/golden.json");
    let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let golden = all["models"][model].clone();
    assert!(golden.is_object(), "no goldens of {model}");
    golden
}
