//! Models that came from other libraries by the ways of docs/models.md, against the libraries themselves.
//!
//! tests/fixtures/converted holds small ones and what their library made of some tensors; with `EMBARK_TEST_LONG=1` the
//! libraries are installed (2 GB) and make them anew. tests/models/README.md says how.

use std::{fs, path::Path};

use embark_sidecar::pb::client::{EmbedRequest, Item, Tensor, item::Input};
use embark_tests::{
    Manifest, Sidecar,
    long::is_long,
    manifest::sha256,
    programs,
    sidecar::{Options, difference},
};
use serde::Deserialize;

/// The libraries: the folder of each.
const LIBRARIES: [&str; 3] = ["sklearn", "xgboost", "tensorflow"];
/// How far a value may be from the library's.
const TOLERANCE: f32 = 1e-4;

/// What is known of a model.
#[derive(Deserialize)]
struct Golden {
    sha256: String,
    output: String,
    inputs: Vec<Vec<f32>>,
    library: Vec<Vec<f32>>,
    onnxruntime: Vec<Vec<f32>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_other_libraries_give_what_the_libraries_give() {
    let kept = programs::root().join("tests/fixtures/converted");
    give_their_goldens(&kept).await;
    if is_long() {
        let made = tempfile::tempdir().unwrap();
        make_anew(made.path()).await;
        give_their_goldens(made.path()).await;
        // The libraries of now give what those gave that made the fixtures.
        for library in LIBRARIES {
            let (anew, kept) = (golden(made.path(), library), golden(&kept, library));
            agree(&format!("{library} anew"), (&anew.library, &kept.library));
        }
    }
}

/// docs/models.md says what is to be done about it.
#[tokio::test]
async fn an_operator_that_the_runtime_does_not_have_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = programs::root().join("tests/fixtures/converted/sklearn/scaler.onnx");
    let manifest = Manifest::of_tensors("scaler", &file, (&[13], 6));
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    assert_eq!(ended.code(), 1, "{}", ended.log);
    let words = "the model needs operator \"Scaler\" of \"ai.onnx.ml\" (node \"Scaler\"), which the runtime does not have";
    assert_eq!(ended.sentences(), [format!("error: scaler: spec.model.source: {words}")]);
    let document = fs::read_to_string(programs::root().join("docs/models.md")).unwrap();
    assert!(document.replace("\n  ", " ").contains(words), "docs/models.md says otherwise");
}

async fn make_anew(folder: &Path) {
    let cache = programs::from_environment("EMBARK_TEST_CACHE").join("converters");
    let mut script = tokio::process::Command::new("bash");
    script.arg(programs::root().join("tests/models/make_converted.sh")).arg(folder).arg(cache);
    script.env("PYTHON", programs::from_environment("EMBARK_TEST_PYTHON"));
    let finished = programs::run(script, b"").await;
    assert_eq!(finished.code, 0, "{}\n{}", finished.output, finished.errors);
}

async fn give_their_goldens(models: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let mut manifests = Vec::new();
    for library in LIBRARIES {
        let (file, golden) = (models.join(library).join("model.onnx"), golden(models, library));
        assert_eq!(sha256(&file), golden.sha256, "{library}: the file is not that of its goldens");
        let shape = u32::try_from(golden.inputs[0].len()).unwrap();
        let manifest = Manifest::of_tensors(library, &file, (&[shape], golden.library[0].len()))
            .with("/spec/model/output/name", golden.output)
            .with("/spec/model/output/normalization", "None");
        manifests.push(manifest.write(folder.path()));
    }
    let data = folder.path().join("data");
    let sidecar = Sidecar::start(&Options { manifests, data, ..Options::default() }).await;
    for library in LIBRARIES {
        let golden = golden(models, library);
        assert!(golden.inputs.len() > 4, "{library} has few goldens");
        let served = embed(&sidecar, library, &golden.inputs).await;
        agree(library, (&served, &golden.library));
        agree(&format!("{library} in onnxruntime"), (&served, &golden.onnxruntime));
    }
    sidecar.stop().await;
}

fn golden(models: &Path, library: &str) -> Golden {
    let file = fs::read(models.join(library).join("golden.json")).unwrap();
    serde_json::from_slice(&file).unwrap()
}

fn agree(what: &str, (served, expected): (&[Vec<f32>], &[Vec<f32>])) {
    assert_eq!(served.len(), expected.len(), "{what}");
    for (row, (one, other)) in served.iter().zip(expected).enumerate() {
        let apart = difference(one, other);
        assert!(apart <= TOLERANCE, "{what}: row {row} differs by {apart}: {one:?}, {other:?}");
    }
}

async fn embed(sidecar: &Sidecar, model: &str, tensors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let tensor = |values: &Vec<f32>| Tensor { float_values: values.clone(), ..Tensor::default() };
    let item = |values| Item { input: Some(Input::Tensor(tensor(values))) };
    let items = tensors.iter().map(item).collect();
    let request = EmbedRequest { model: model.to_owned(), items, ..EmbedRequest::default() };
    let results = sidecar.call(request).await.unwrap().results;
    results.into_iter().map(|result| result.vector).collect()
}
