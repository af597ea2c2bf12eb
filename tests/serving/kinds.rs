//! Vectors over the wire against onnxruntime's, on the same files: small models of every kind of input, and MiniLM, as
//! tests/models/make_goldens.py makes them for the run.

use std::path::{Path, PathBuf};

use embark_sidecar::pb::client::{
    DataType, EmbedRequest, Item, ItemResult, Source, Tensor, item::Input,
};
use embark_tests::{
    Manifest, Sidecar,
    manifest::sha256,
    programs,
    sidecar::{Options, cosine, sources},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

/// How alike a vector must be to the other runtime's.
const COSINE: f64 = 0.9999;
/// How far a value may be from it, by the length of the vector.
const TOLERANCE: f64 = 1e-2;

/// Models, and what another runtime makes of some items with them.
#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    files: Files,
    output: Value,
    /// `spec.input`, without artifacts.
    input: Value,
    items: Vec<Given>,
    results: Vec<Golden>,
}

#[derive(Deserialize)]
struct Files {
    model: PathBuf,
    tokenizer: Option<PathBuf>,
    vocabulary: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Given {
    Text(String),
    Category(String),
    Tensor { dtype: String, shape: Vec<i64>, data: String },
}

/// What a result must say. What stands for no field of this kind of input is not there, and the field has its default.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Golden {
    vector: Vec<f32>,
    tokens: u32,
    chunks: u32,
    truncated: bool,
    unknown: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_input_gives_the_vectors_of_another_runtime_alone_and_in_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let cases = goldens(&folder.path().join("goldens")).await;
    assert!(cases.len() >= 21, "{} models", cases.len());
    let mut options = Options { data: folder.path().join("data"), ..Options::default() };
    for case in &cases {
        // Each item is computed twice: what was remembered of it would prove nothing.
        let uncached = case.manifest().with("/spec/cache/mode", "Disabled");
        options.manifests.push(uncached.write(folder.path()));
    }
    let sidecar = Sidecar::start(&options).await;
    for case in &cases {
        let together = case.call(&sidecar, &case.items).await;
        for (item, among) in case.items.iter().zip(&together) {
            let alone = case.call(&sidecar, std::slice::from_ref(item)).await.remove(0);
            assert!(cosine(&alone.vector, &among.vector) >= COSINE, "{}", case.name);
        }
        case.agrees(&together);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_result_says_of_its_input_is_remembered_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cases = goldens(&folder.path().join("goldens")).await;
    let mut options = Options { data: folder.path().join("data"), ..Options::default() };
    let small = cases.iter().filter(|case| !case.name.starts_with("minilm"));
    let small: Vec<&Case> = small.collect();
    for case in &small {
        options.manifests.push(case.manifest().write(folder.path()));
    }
    let mut from = vec![Source::Computed, Source::HitMemory];
    for _ in 0..2 {
        let sidecar = Sidecar::start(&options).await;
        for source in &from {
            for case in &small {
                let results = case.call(&sidecar, &case.items).await;
                // All ids that are not known are one input.
                let shared = |found: &Source| [*source, Source::Coalesced].contains(found);
                let found = sources(&results);
                assert!(found.iter().all(shared), "{}: {found:?}", case.name);
                case.agrees(&results);
            }
        }
        sidecar.stop().await;
        from = vec![Source::HitDisk];
    }
}

// === impl Case ===

impl Case {
    fn manifest(&self) -> Manifest {
        let artifact = |file: &Path| {
            let uri = format!("file://{}", file.display());
            json!({"uri": uri, "sha256": sha256(file)})
        };
        let mut manifest = Manifest::tiny(&self.name)
            .with("/spec/model/source", artifact(&self.files.model))
            .with("/spec/model/output", self.output.clone())
            .with("/spec/input", self.input.clone());
        if let Some(file) = &self.files.tokenizer {
            manifest = manifest.with("/spec/input/text/tokenizer", artifact(file));
        }
        if let Some(file) = &self.files.vocabulary {
            manifest = manifest.with("/spec/input/categorical/vocabulary", artifact(file));
        }
        manifest
    }

    async fn call(&self, sidecar: &Sidecar, items: &[Given]) -> Vec<ItemResult> {
        let items = items.iter().map(Given::item).collect();
        let request = EmbedRequest { model: self.name.clone(), items, ..EmbedRequest::default() };
        let reply = sidecar.call(request).await;
        reply.unwrap_or_else(|status| panic!("{}: {status}", self.name)).results
    }

    fn agrees(&self, results: &[ItemResult]) {
        assert_eq!(results.len(), self.results.len(), "{}", self.name);
        for (at, (result, golden)) in results.iter().zip(&self.results).enumerate() {
            let place = format!("{}, item {at}", self.name);
            assert!(result.error.is_none(), "{place}: {:?}", result.error);
            let said = (result.tokens, result.chunks, result.truncated, result.unknown_category);
            let expected = (golden.tokens, golden.chunks, golden.truncated, golden.unknown);
            assert_eq!(said, expected, "{place}");
            let found = cosine(&result.vector, &golden.vector);
            assert!(found >= COSINE, "{place}: cosine {found}");
            let length = |vector: &[f32]| vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let apart: Vec<f32> =
                result.vector.iter().zip(&golden.vector).map(|(a, b)| a - b).collect();
            let apart = (length(&apart) / length(&golden.vector)).sqrt();
            assert!(apart <= TOLERANCE, "{place}: {apart} of its length apart");
        }
    }
}

// === impl Given ===

impl Given {
    fn item(&self) -> Item {
        let input = match self {
            Given::Text(text) => Input::Text(text.clone()),
            Given::Category(id) => Input::Category(id.clone()),
            Given::Tensor { dtype, shape, data } => Input::Tensor(Tensor {
                data_type: DataType::from_str_name(&format!("DATA_TYPE_{}", dtype.to_uppercase()))
                    .expect("a type of the proto")
                    .into(),
                shape: shape.clone(),
                data: bytes(data),
                float_values: Vec::new(),
            }),
        };
        Item { input: Some(input) }
    }
}

// === free functions ===

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

/// Has the models and their goldens made.
async fn goldens(folder: &Path) -> Vec<Case> {
    let mut python = Command::new(programs::from_environment("EMBARK_TEST_PYTHON"));
    python.arg(programs::root().join("tests/models/make_goldens.py")).arg(folder);
    python.arg("--minilm").arg(programs::from_environment("EMBARK_TEST_MINILM"));
    let made = programs::run(python, b"").await;
    assert_eq!(made.code, 0, "{}", made.errors);
    let file = std::fs::read(folder.join("goldens.json")).unwrap();
    serde_json::from_slice::<Goldens>(&file).unwrap().cases
}
