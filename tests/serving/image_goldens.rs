//! Image files of every kind over the wire, against Pillow and onnxruntime: `tests/models/make_image_goldens.py` makes the
//! files, the models and what is expected in the same run.
//!
//! Most of its models give the values that they read, so that what becomes of an image before the model is seen value for
//! value. Of PNG, GIF and WebP they must be the very same. JPEG leaves a decoder some freedom in rounding and in how it enlarges
//! colours that are kept at half the size, of which libjpeg-turbo, which Pillow has, and ours make different use: at most 3 of
//! 255 levels were measured, and 0.67 on average over a file.

use std::{fs, path::Path};

use embark_sidecar::pb::client::{EmbedRequest, Item, item::Input};
use embark_tests::{
    Manifest, Sidecar, programs,
    sidecar::{Options, cosine, difference},
};
use serde::Deserialize;
use serde_json::Value;

/// Photos that are read beside the files, the first of which they are made of.
const PHOTOS: [&str; 6] = [
    "coffee.jpg",
    "cat.jpg",
    "cat-smaller.webp",
    "hubble-cropped.jpg",
    "retina.jpg",
    "rocket-brighter.jpg",
];
/// The least cosine of the real model's vectors to the other runtime's, of equal pixels and of nearly equal ones.
const SAME: f64 = 0.9999;
const ALIKE: f64 = 0.999;
/// How many of 255 levels a value of a JPEG may be off, and all of a file's on average.
const FURTHEST_LEVELS: f32 = 4.0;
const MEAN_LEVELS: f32 = 1.0;
/// Files of a call.
const BATCH: usize = 16;

#[derive(Deserialize)]
struct Goldens {
    models: Vec<Model>,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct Model {
    name: String,
    dimensions: usize,
    /// `spec.input.image`.
    image: Value,
}

#[derive(Deserialize)]
struct File {
    name: String,
    /// Whether its format leaves no freedom to who decodes it.
    exact: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_image_is_read_as_pillow_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = make(folder.path()).await;
    assert!(goldens.models.len() > 20 && goldens.files.len() > 40, "goldens are missing");
    let manifests = goldens.models.iter().map(|model| {
        let file = folder.path().join(format!("{}.onnx", model.name));
        let how = (model.image.clone(), model.dimensions);
        let manifest = Manifest::of_images(&model.name, &file, how);
        manifest.with("/spec/cache/mode", "Disabled").write(folder.path())
    });
    let options = Options {
        manifests: manifests.collect(),
        data: folder.path().join("data"),
        ..Options::default()
    };
    let sidecar = Sidecar::start(&options).await;
    let mut wrong = Vec::new();
    for model in &goldens.models {
        let expected = rows(&folder.path().join(format!("{}.f32", model.name)), model.dimensions);
        assert_eq!(expected.len(), goldens.files.len(), "{}", model.name);
        let served = embed(&sidecar, model, (folder.path(), &goldens.files)).await;
        for ((file, one), other) in goldens.files.iter().zip(&served).zip(&expected) {
            wrong.extend(compared(model, file, (one, other)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sidecar.stop().await;
}

/// Runs the script, which leaves everything in the folder.
async fn make(folder: &Path) -> Goldens {
    let root = programs::root();
    let mut script = tokio::process::Command::new(programs::from_environment("EMBARK_TEST_PYTHON"));
    script
        .arg(root.join("tests/models/make_image_goldens.py"))
        .arg(root.join("examples/models/efficientnet-lite0/model.onnx"))
        .arg(folder)
        .args(PHOTOS.map(|photo| root.join("examples/photos").join(photo)));
    let finished = programs::run(script, b"").await;
    assert_eq!(finished.code, 0, "{}\n{}", finished.output, finished.errors);
    serde_json::from_slice(&fs::read(folder.join("goldens.json")).unwrap()).unwrap()
}

/// What is wrong with a vector.
fn compared(model: &Model, file: &File, (served, expected): (&[f32], &[f32])) -> Option<String> {
    let (furthest, near) = (difference(served, expected), cosine(served, expected));
    let gives_values = model.name != "efficientnet";
    let is_right = match (gives_values, file.exact) {
        (true, true) => furthest == 0.0,
        // Of floats, whose levels have another length in each channel, only the direction is looked at.
        (true, false) if model.image["dtype"] == "Float32" => near >= ALIKE,
        (true, false) => furthest <= FURTHEST_LEVELS && mean(served, expected) <= MEAN_LEVELS,
        (false, exact) => near >= if exact { SAME } else { ALIKE },
    };
    let (model, file) = (&model.name, &file.name);
    (!is_right).then(|| format!("{model}: {file} is off by at most {furthest}, cosine {near}"))
}

fn mean(one: &[f32], other: &[f32]) -> f32 {
    let sum: f32 = one.iter().zip(other).map(|(one, other)| (one - other).abs()).sum();
    sum / one.len() as f32
}

/// Rows of floats of a file.
fn rows(file: &Path, length: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    values.chunks_exact(length).map(<[f32]>::to_vec).collect()
}

async fn embed(
    sidecar: &Sidecar,
    model: &Model,
    (folder, files): (&Path, &[File]),
) -> Vec<Vec<f32>> {
    let item = |file: &File| Item {
        input: Some(Input::Image(fs::read(folder.join(&file.name)).unwrap())),
    };
    let mut vectors = Vec::new();
    for some in files.chunks(BATCH) {
        let items = some.iter().map(item).collect();
        let request = EmbedRequest { model: model.name.clone(), items, ..EmbedRequest::default() };
        for (result, file) in sidecar.call(request).await.unwrap().results.into_iter().zip(some) {
            assert!(result.error.is_none(), "{}: {:?}", file.name, result.error);
            vectors.push(result.vector);
        }
    }
    vectors
}
