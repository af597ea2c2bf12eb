//! Models of numbers: tensors over the wire, as values and as bytes.

use std::fs;

use embark_sidecar::pb::client::{
    DataType, EmbedRequest, InputKind, InvalidateRequest, Item, ItemKeys, ItemResult, Source,
    Tensor, invalidate_request::Scope, item::Input,
};
use embark_tests::{
    Manifest, Sidecar,
    onnx::Tower,
    programs,
    random::Random,
    refusal,
    sidecar::{Options, difference, items, sources},
};
use serde_json::Value;
use tonic::Code;

/// How far a value may be from the other runtime's.
const TOLERANCE: f32 = 1e-4;
/// How far a vector may be from that of the same tensor in a batch.
const SAME: f32 = 1e-5;

#[tokio::test(flavor = "multi_thread")]
async fn the_wine_model_gives_the_golden_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::wine("wine")).await;
    gives_the_goldens(&sidecar).await;
    let model = sidecar.model("wine").await.unwrap();
    assert_eq!((model.input_kind(), model.dimensions), (InputKind::Tensor, 8));
    assert!(!model.normalized && model.max_tokens == 0);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_example_of_wines_runs_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        manifests: vec![programs::root().join("examples/wine.yaml")],
        data: folder.path().join("data"),
        ..Options::default()
    };
    let sidecar = Sidecar::start(&options).await;
    gives_the_goldens(&sidecar).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_bytes_of_one_tensor_have_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::wine("wine"));
    let sidecar = Sidecar::start(&options).await;
    let (input, _) = goldens().remove(0);
    let first = embed(&sidecar, vec![values(&input)]).await;
    assert_eq!(sources(&first), [Source::Computed]);
    let given = Tensor { shape: vec![13], data_type: DataType::Float32.into(), ..bytes(&input) };
    let again = embed(&sidecar, vec![bytes(&input), given, values(&input)]).await;
    assert_eq!(sources(&again), [Source::HitMemory; 3]);
    assert!(again.iter().all(|result| result.vector == first[0].vector && result.tokens == 0));
    let mut other = input.clone();
    other[12] += 1.0;
    assert_eq!(sources(&embed(&sidecar, vec![values(&other)]).await), [Source::Computed]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    let kept = embed(&sidecar, vec![bytes(&input), values(&other)]).await;
    assert_eq!(sources(&kept), [Source::HitDisk; 2]);
    assert_eq!(kept[0].vector, first[0].vector);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tensor_that_does_not_fit_is_refused_by_its_field_and_its_company_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::wine("wine")).await;
    let (input, _) = goldens().remove(0);
    let good = values(&input);
    let wrong = [
        (Tensor { shape: vec![12], ..good.clone() }, "shape", "[13]"),
        (Tensor { shape: vec![1, 13], ..good.clone() }, "shape", "[13]"),
        (
            Tensor { data_type: DataType::Float64.into(), ..good.clone() },
            "data_type",
            "DATA_TYPE_FLOAT32",
        ),
        (Tensor { data_type: 77, ..good.clone() }, "data_type", "enum"),
        (values(&input[..12]), "float_values", "13"),
        (bytes(&input[..12]), "data", "52 bytes"),
        (Tensor { data: vec![0; 53], ..Tensor::default() }, "data", "52 bytes"),
        (Tensor { data: vec![0; 52], ..good.clone() }, "float_values", "only one"),
        (Tensor::default(), "data", "52 bytes"),
    ];
    for (tensor, part, allowed) in &wrong {
        let refused = sidecar.call(request(vec![tensor.clone()])).await.unwrap_err();
        let field = format!("items[0].tensor.{part}");
        let metadata = refusal::of_field(&refused, Code::InvalidArgument, "SHAPE", &field);
        assert!(metadata["allowed"].contains(allowed), "{metadata:?} does not allow {allowed}");
    }
    let mixed = wrong.iter().map(|(tensor, ..)| tensor.clone()).chain([good]).collect();
    let mut results = embed(&sidecar, mixed).await;
    let served = results.pop().unwrap();
    assert!(served.error.is_none() && served.vector.len() == 8, "{served:?}");
    for (at, (result, (_, part, _))) in results.iter().zip(&wrong).enumerate() {
        let error = result.error.as_ref().unwrap();
        let code = Code::InvalidArgument as i32;
        assert_eq!((error.code, error.reason.as_str()), (code, "SHAPE"));
        let field = format!("items[{at}].tensor.{part}: ");
        assert!(error.message.starts_with(&field), "{}", error.message);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_no_item_of_a_model_of_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::wine("wine")).await;
    let text = EmbedRequest { items: items(&["a text"]), ..EmbedRequest::default() };
    let refused = sidecar.call(text).await.unwrap_err();
    let bad = Code::InvalidArgument;
    let metadata = refusal::of_field(&refused, bad, "ITEM_KIND", "items[0].text");
    assert_eq!(metadata["allowed"], "tensor");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tensor_alone_and_in_a_batch_agree() {
    let folder = tempfile::tempdir().unwrap();
    let tower = Tower::new();
    let uncached = manifest_of(&tower, folder.path()).with("/spec/cache/mode", "Disabled");
    let sidecar = Sidecar::serve(folder.path(), &uncached).await;
    let mut random = Random::new(7);
    let mut row =
        || (0..Tower::FEATURES).map(|_| random.below(1000) as f32 / 250.0 - 2.0).collect();
    let rows: Vec<Vec<f32>> = (0..100).map(|_| row()).collect();
    let together = embed(&sidecar, rows.iter().map(|row| values(row)).collect()).await;
    for (row, among) in rows.iter().zip(&together) {
        let apart = difference(&among.vector, &tower.vector(row));
        assert!(apart <= SAME, "differs by {apart} from plain arithmetic");
        let alone = embed(&sidecar, vec![values(row)]).await;
        let apart = difference(&alone[0].vector, &among.vector);
        assert!(apart <= SAME, "differs by {apart} from itself in a batch");
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tensor_without_a_finite_vector_fails_alone_and_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::wine("wine")).await;
    let (input, output) = goldens().remove(0);
    let with = |at: usize, value: f32| {
        let mut broken = input.clone();
        broken[at] = value;
        broken
    };
    // The model divides this measurement by a number below 1, which leaves the range of f32.
    let broken = with(7, f32::MAX);
    for broken in [&with(3, f32::NAN), &with(3, f32::INFINITY), &broken, &broken] {
        let results = embed(&sidecar, vec![values(broken), values(&input)]).await;
        assert_eq!(results[0].error.as_ref().unwrap().reason, "NOT_FINITE");
        assert!(difference(&results[1].vector, &output) <= TOLERANCE);
    }
    let refused = sidecar.call(request(vec![values(&broken)])).await.unwrap_err();
    refusal::metadata(&refused, Code::Internal, "NOT_FINITE");
    assert!((sidecar.metric("embark_cache_entries", &[]).await - 1.0).abs() < 0.5);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tensor_is_forgotten_however_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let allowing = Manifest::wine("wine").with("/spec/cache/allowInvalidation", true);
    let sidecar = Sidecar::serve(folder.path(), &allowing).await;
    let inputs: Vec<Vec<f32>> = goldens().into_iter().map(|(input, _)| input).collect();
    let all = || inputs.iter().map(|input| values(input)).collect();
    embed(&sidecar, all()).await;
    let scope = Some(Scope::Items(ItemKeys { items: vec![item(bytes(&inputs[1]))] }));
    let forget = InvalidateRequest { scope, ..InvalidateRequest::default() };
    sidecar.cache().await.invalidate(forget).await.unwrap();
    let after = sources(&embed(&sidecar, all()).await);
    assert_eq!(after, [Source::HitMemory, Source::Computed, Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test]
async fn another_shape_than_the_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::wine("bad").with("/spec/input/tensor/shape/0", 12);
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    assert_eq!(ended.code(), 1, "{}", ended.log);
    let expected = "error: bad: spec.input.tensor.shape: [12], but the model's file has input \
                    \"features\" float [batch, 13]; it must be the axes behind the first, which is \
                    the batch";
    assert_eq!(ended.sentences(), [expected]);
}

#[tokio::test]
async fn a_text_model_is_no_model_of_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let file = programs::root().join("examples/models/tiny-static-minilm/model.onnx");
    let manifest = Manifest::of_tensors("bad", &file, (&[13], 128));
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    let sentences = ended.sentences();
    let expected = "error: bad: spec.model.source: the model must have one input, a tensor \
                    [batch, …]; its inputs: \"input_ids\" int64";
    assert!(sentences.len() == 1 && sentences[0].starts_with(expected), "{sentences:?}");
}

fn manifest_of(tower: &Tower, folder: &std::path::Path) -> Manifest {
    let file = folder.join("tower.onnx");
    fs::write(&file, tower.onnx()).unwrap();
    let shape = u32::try_from(Tower::FEATURES).unwrap();
    Manifest::of_tensors("tower", &file, (&[shape], Tower::DIMENSIONS))
}

async fn gives_the_goldens(sidecar: &Sidecar) {
    let goldens = goldens();
    let tensors = goldens.iter().map(|(input, _)| values(input)).collect();
    let results = embed(sidecar, tensors).await;
    assert_eq!(results.len(), goldens.len());
    for (result, (_, output)) in results.iter().zip(&goldens) {
        let apart = difference(&result.vector, output);
        assert!(apart <= TOLERANCE, "{:?} is not {output:?}", result.vector);
    }
}

/// Inputs and outputs of the wine model, in fixtures/golden.json.
fn goldens() -> Vec<(Vec<f32>, Vec<f32>)> {
    let file = programs::root().join("tests/fixtures/golden.json");
    let all: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let numbers = |list: &Value| serde_json::from_value(list.clone()).unwrap();
    let rows = all["tensors"]["wine-pca8"].as_array().unwrap();
    rows.iter().map(|row| (numbers(&row["input"]), numbers(&row["output"]))).collect()
}

async fn embed(sidecar: &Sidecar, tensors: Vec<Tensor>) -> Vec<ItemResult> {
    sidecar.call(request(tensors)).await.unwrap().results
}

fn request(tensors: Vec<Tensor>) -> EmbedRequest {
    EmbedRequest { items: tensors.into_iter().map(item).collect(), ..EmbedRequest::default() }
}

fn item(tensor: Tensor) -> Item {
    Item { input: Some(Input::Tensor(tensor)) }
}

fn values(values: &[f32]) -> Tensor {
    Tensor { float_values: values.to_vec(), ..Tensor::default() }
}

fn bytes(values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { data, ..Tensor::default() }
}
