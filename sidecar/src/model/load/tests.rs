use std::collections::BTreeMap;

use embark_crds::contract::Location;
use parking_lot::Mutex;
use serde::Deserialize;

use super::*;
use crate::{
    embedding::Embedding,
    input::{Input as Given, Text},
    model::{
        engine::{Row, Threads},
        test_support::{TINY_MODEL, artifact, builtin, output, text, tiny},
    },
};

/// One model's goldens, see the file's `origin`.
#[derive(Deserialize)]
struct Golden {
    sentences: Vec<String>,
    cosines_01_02_12: [f32; 3],
    first8_of_sentence0: [f32; 8],
    input_ids_sentence0: Vec<u32>,
    overlong: Overlong,
}

/// A text of more tokens than a row may have.
#[derive(Deserialize)]
struct Overlong {
    repeated: String,
    times: usize,
    max_tokens: u32,
    last_ids: Vec<u32>,
    first8: [f32; 8],
}

#[derive(Deserialize)]
struct Goldens {
    models: BTreeMap<String, Golden>,
}

fn golden(name: &str) -> Golden {
    let file = include_str!("../../../../tests/fixtures/golden.json");
    serde_json::from_str::<Goldens>(file).unwrap().models.remove(name).unwrap()
}

async fn load_in(folder: &Path, serving: &ServingConfig) -> Result<LoadedModel, LoadError> {
    load(serving, &ArtifactStore::new(folder), folder, |_| {}).await
}

async fn refused(serving: &ServingConfig) -> String {
    let folder = tempfile::tempdir().unwrap();
    match load_in(folder.path(), serving).await {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    }
}

fn embed(model: &mut LoadedModel, texts: &[String]) -> Vec<Embedding> {
    let rows: Vec<Row> = texts.iter().map(|text| row(model, text)).collect();
    let rows: Vec<&Row> = rows.iter().collect();
    model.engine.run(&rows, Threads::One).unwrap().into_iter().map(Result::unwrap).collect()
}

fn row(model: &LoadedModel, text: &str) -> Row {
    let text = Text::from_utf8(text.to_owned().into()).unwrap();
    model.preparer.prepare("", &Given::Text(text)).unwrap().rows.remove(0)
}

fn cosine(a: &Embedding, b: &Embedding) -> f32 {
    a.vector.values().zip(b.vector.values()).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn the_tiny_model_gives_its_goldens() {
    let folder = tempfile::tempdir().unwrap();
    let golden = golden("tiny-static-minilm");
    let mut model = load_in(folder.path(), &tiny().serving).await.unwrap();
    let row = row(&model, &golden.sentences[0]);
    assert_eq!(row.tokens(), golden.input_ids_sentence0);
    let vectors = embed(&mut model, &golden.sentences);
    for (value, expected) in vectors[0].vector.values().zip(golden.first8_of_sentence0) {
        assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
    }
    for ((a, b), expected) in [(0, 1), (0, 2), (1, 2)].into_iter().zip(golden.cosines_01_02_12) {
        let cosine = cosine(&vectors[a], &vectors[b]);
        assert!((cosine - expected).abs() < 1e-4, "{a} {b}: {cosine} is not {expected}");
    }
}

#[tokio::test]
async fn a_text_of_too_many_tokens_gives_its_golden() {
    let folder = tempfile::tempdir().unwrap();
    let golden = golden("tiny-static-minilm").overlong;
    let mut serving = tiny().serving;
    text(&mut serving).max_tokens = golden.max_tokens;
    let mut model = load_in(folder.path(), &serving).await.unwrap();
    let text = golden.repeated.repeat(golden.times);
    let row = row(&model, &text);
    assert!(row.truncated && row.tokens().ends_with(&golden.last_ids), "{row:?}");
    let embedding = embed(&mut model, &[text]).remove(0);
    assert_eq!((embedding.tokens, embedding.truncated), (golden.max_tokens, true));
    for (value, expected) in embedding.vector.values().zip(golden.first8) {
        assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
    }
}

#[tokio::test]
async fn a_text_alone_and_in_a_batch_agree() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = load_in(folder.path(), &tiny().serving).await.unwrap();
    let texts: Vec<String> = (1..=8).map(|n| "lovely weather ".repeat(n * n)).collect();
    let together = embed(&mut model, &texts);
    for (text, among) in texts.iter().zip(together) {
        let alone = embed(&mut model, std::slice::from_ref(text)).remove(0);
        let differs = alone.vector.values().zip(among.vector.values()).map(|(a, b)| (a - b).abs());
        assert!(differs.fold(0.0, f32::max) < 1e-5);
        assert_eq!((alone.tokens, alone.truncated), (among.tokens, among.truncated));
    }
}

#[tokio::test]
async fn the_states_come_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = states.clone();
    let store = ArtifactStore::new(folder.path());
    let on_state = move |state| seen.lock().push(state);
    load(&tiny().serving, &store, folder.path(), on_state).await.unwrap();
    let fetching = State::Fetching { bytes: 0, total: None };
    let file = [fetching, State::Verifying];
    let expected = [State::Pending, State::Loading, State::Warming, State::Ready];
    let (before, after) = expected.split_at(1);
    assert_eq!(*states.lock(), [before, &file, &file, after].concat());
}

#[tokio::test]
async fn a_failure_is_the_last_state() {
    let folder = tempfile::tempdir().unwrap();
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = states.clone();
    let store = ArtifactStore::new(folder.path());
    let mut serving = tiny().serving;
    serving.output = output(64);
    let loaded = load(&serving, &store, folder.path(), move |state| seen.lock().push(state)).await;
    let error = loaded.err().unwrap();
    let sentence = error.to_string();
    assert!(sentence.starts_with("spec.model.output.dimensions: "), "{sentence}");
    assert!(sentence.ends_with("64, but output \"sentence_embedding\" has 128"), "{sentence}");
    assert_eq!(states.lock().last(), Some(&State::Failed));
}

#[tokio::test]
async fn a_tokenizer_that_is_the_model_is_refused() {
    let mut serving = tiny().serving;
    text(&mut serving).tokenizer = builtin("model.onnx", TINY_MODEL);
    let sentence = refused(&serving).await;
    assert!(sentence.starts_with("spec.input.text.tokenizer: the file is not a Hugging Face"));
}

#[tokio::test]
async fn a_file_that_is_not_onnx_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), "not a model").unwrap();
    let mut serving = tiny().serving;
    let path = "model.onnx".to_owned();
    serving.model = artifact(Location::File { path }, b"not a model");
    let error = load_in(folder.path(), &serving).await.err().unwrap();
    assert!(error.to_string().starts_with("spec.model.source: the file is not an ONNX model: "));
}

#[tokio::test]
async fn a_tokenizer_with_a_larger_vocabulary_than_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::str::from_utf8(crate::model::test_support::TINY_TOKENIZER).unwrap();
    let larger = bytes.replacen("\"[PAD]\":0", "\"[PAD]\":0,\"[larger]\":90000", 1);
    assert_ne!(larger, bytes, "the vocabulary is written in another way");
    std::fs::write(folder.path().join("tokenizer.json"), &larger).unwrap();
    let mut serving = tiny().serving;
    let location = Location::File { path: "tokenizer.json".to_owned() };
    text(&mut serving).tokenizer = artifact(location, larger.as_bytes());
    let sentence = load_in(folder.path(), &serving).await.err().unwrap().to_string();
    assert!(
        sentence.starts_with("spec.input.text.tokenizer: does not fit the model"),
        "{sentence}"
    );
    assert!(sentence.contains("90000") && sentence.contains("30522"), "{sentence}");
}
