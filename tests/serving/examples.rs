//! The manifests of examples/ as they are: each is served by the real sidecar, and does what it says.

use std::{fs, os::unix::fs::symlink, path::Path};

use embark_sidecar::pb::client::{EmbedRequest, InputKind, Item, ItemResult, Source, item::Input};
use embark_tests::{
    Sidecar, programs,
    sidecar::{Options, cosine, difference, sources},
};
use serde_json::Value;

use super::goldens;

/// The manifests, and the file of tests/serving that runs each.
const MANIFESTS: [(&str, &str); 5] = [
    ("categories.yaml", "examples.rs"),
    ("images.yaml", "examples.rs"),
    ("minilm.yaml", "examples.rs"),
    ("quickstart.yaml", "goldens.rs"),
    ("wine.yaml", "tensors.rs"),
];
/// From this cosine on, two images of the example are one.
const ALIKE: f64 = 0.60;
/// How many images a call has.
const BATCH: usize = 8;
/// How far a value may be from the other runtime's.
const TOLERANCE: f32 = 1e-4;

#[test]
fn every_manifest_of_the_examples_is_run_by_a_test() {
    let entries = fs::read_dir(programs::root().join("examples")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    found.sort();
    assert_eq!(found, MANIFESTS.map(|(manifest, _)| manifest));
    for (manifest, file) in MANIFESTS {
        let test = programs::root().join("tests/serving").join(file);
        let named = format!("\"examples/{manifest}\"");
        assert!(fs::read_to_string(test).unwrap().contains(&named), "{file} runs no {manifest}");
    }
}

/// Its model is not in the repository: the manifest stands beside a folder that has it, as its head says.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_real_text_model_gives_the_golden_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("minilm.yaml");
    fs::copy(programs::root().join("examples/minilm.yaml"), &manifest).unwrap();
    fs::create_dir(folder.path().join("models")).unwrap();
    let model = programs::from_environment("EMBARK_TEST_MINILM");
    symlink(model, folder.path().join("models/minilm")).unwrap();
    let sidecar = serve(folder.path(), &manifest).await;
    goldens::gives_the_goldens(&sidecar, "minilm", &goldens::golden("minilm-l6-v2-fp32")).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_images_finds_all_altered_copies_and_no_two_photos_alike() {
    let photos = photos();
    let folder = tempfile::tempdir().unwrap();
    let manifest = programs::root().join("examples/images.yaml");
    let sidecar = serve(folder.path(), &manifest).await;
    let model = sidecar.model("images").await.unwrap();
    assert_eq!((model.input_kind(), model.dimensions), (InputKind::Image, 1280));

    let first = embed_photos(&sidecar, &photos).await;
    assert_eq!(sources(&first), vec![Source::Computed; photos.len()]);
    let (mut copies, mut others) = (0, 0);
    for (one, (name, _)) in photos.iter().enumerate() {
        for (other, (another, _)) in photos.iter().enumerate().skip(one + 1) {
            let is_copy = of(name) == of(another);
            let near = cosine(&first[one].vector, &first[other].vector);
            assert_eq!(near >= ALIKE, is_copy, "{name} and {another}: {near}");
            if is_copy { copies += 1 } else { others += 1 }
        }
    }
    // Ten photos, each with three copies.
    assert_eq!((copies, others), (10 * 6, 40 * 39 / 2 - 10 * 6));

    let again = embed_photos(&sidecar, &photos).await;
    assert_eq!(sources(&again), vec![Source::HitMemory; photos.len()]);
    for (one, other) in first.iter().zip(&again) {
        assert_eq!(one.vector, other.vector);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_categories_maps_ids_and_says_which_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = programs::root().join("examples/categories.yaml");
    let sidecar = serve(folder.path(), &manifest).await;
    let model = sidecar.model("categories").await.unwrap();
    assert_eq!((model.input_kind(), model.dimensions), (InputKind::Categorical, 8));

    let golden = golden_categories();
    let numbers = |list: &Value| serde_json::from_value::<Vec<f32>>(list.clone()).unwrap();
    for (id, expected) in golden["known"].as_object().unwrap() {
        let [result] = &embed_categories(&sidecar, &[id]).await[..] else { panic!("one result") };
        assert!(!result.unknown_category, "{id}");
        let apart = difference(&result.vector, &numbers(expected));
        assert!(apart <= TOLERANCE, "{id} differs by {apart}");
    }
    // Ids are compared to the letter, and a blank at an end is a letter.
    for id in ["Atlantis", "fr", "FR ", " FR", "F"] {
        let [result] = &embed_categories(&sidecar, &[id]).await[..] else { panic!("one result") };
        assert!(result.unknown_category, "{id:?}");
        let apart = difference(&result.vector, &numbers(&golden["unknown"]));
        assert!(apart <= TOLERANCE, "{id:?} differs by {apart}");
    }
    every_id_has_a_row_of_its_own(&sidecar).await;
    sidecar.stop().await;
}

async fn every_id_has_a_row_of_its_own(sidecar: &Sidecar) {
    let file = programs::root().join("examples/models/countries/vocabulary.txt");
    let text = fs::read_to_string(file).unwrap();
    let ids: Vec<&str> = text.lines().collect();
    assert_eq!(ids.len(), 127);
    let results = embed_categories(sidecar, &ids).await;
    let mut vectors: Vec<&Vec<f32>> = results.iter().map(|result| &result.vector).collect();
    assert!(results.iter().all(|result| !result.unknown_category && result.vector.len() == 8));
    vectors.sort_by(|one, other| one.partial_cmp(other).unwrap());
    vectors.dedup();
    assert_eq!(vectors.len(), ids.len());
    let again = embed_categories(sidecar, &ids).await;
    assert_eq!(sources(&again), vec![Source::HitMemory; ids.len()]);
    // What the model was made for: countries of a region are near each other.
    let of = |id: &str| &results[ids.iter().position(|one| *one == id).unwrap()].vector;
    assert!(cosine(of("FR"), of("DE")) > cosine(of("FR"), of("JP")) + 0.3);
}

/// A sidecar with a manifest where it lies.
async fn serve(folder: &Path, manifest: &Path) -> Sidecar {
    let manifests = vec![manifest.to_owned()];
    let data = folder.join("data");
    Sidecar::start(&Options { manifests, data, ..Options::default() }).await
}

/// The photos and their copies: names and files.
fn photos() -> Vec<(String, Vec<u8>)> {
    let folder = programs::root().join("examples/photos");
    let mut photos = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending != "md") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            photos.push((name, fs::read(path).unwrap()));
        }
    }
    photos.sort();
    photos
}

/// Which photo an image is, or is a copy of.
fn of(name: &str) -> &str {
    name.split('-').next().unwrap()
}

async fn embed_photos(sidecar: &Sidecar, photos: &[(String, Vec<u8>)]) -> Vec<ItemResult> {
    let mut results = Vec::new();
    for some in photos.chunks(BATCH) {
        let items = some.iter().map(|(_, file)| Input::Image(file.clone()));
        results.extend(embed(sidecar, items).await);
    }
    results
}

async fn embed_categories(sidecar: &Sidecar, ids: &[&str]) -> Vec<ItemResult> {
    embed(sidecar, ids.iter().map(|id| Input::Category((*id).to_owned()))).await
}

async fn embed(sidecar: &Sidecar, inputs: impl Iterator<Item = Input>) -> Vec<ItemResult> {
    let items: Vec<Item> = inputs.map(|input| Item { input: Some(input) }).collect();
    let results = sidecar.call(EmbedRequest { items, ..EmbedRequest::default() }).await.unwrap();
    for result in &results.results {
        assert!(result.error.is_none(), "{result:?}");
    }
    results.results
}

/// Vectors of the model of categories, in fixtures/golden.json.
fn golden_categories() -> Value {
    let file = programs::root().join("tests/fixtures/golden.json");
    let all: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    all["categories"]["countries"].clone()
}
