//! What a vector depends on: texts of different lengths share runs only where padding shows in no vector.

use embark_tests::{
    Manifest, Sidecar, onnx, programs,
    sidecar::{cosine, request},
};

/// Texts of many lengths.
fn texts() -> Vec<String> {
    (0..64).map(|n| format!("text{}", " word".repeat(n % 13))).collect()
}

/// Rows wait for others, so that there are others to be merged with.
fn patient(manifest: Manifest) -> Manifest {
    manifest.with("/spec/batching/maxDelay", "20ms").with("/spec/cache/mode", "Disabled")
}

/// What `/status` says of merging, the padding that was computed, and the least cosine of vectors computed together to those
/// computed each alone.
async fn measure(sidecar: &Sidecar) -> (serde_json::Value, f64, f64) {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = sidecar.call(request(&texts)).await.unwrap().results;
    let padding = sidecar.metric("embark_computed_tokens_total", &["kind=\"padding\""]).await;
    let mut least = 1.0_f64;
    for (text, merged) in texts.iter().zip(&together) {
        let alone = sidecar.embed(&[text]).await;
        least = least.min(cosine(&alone[0].vector, &merged.vector));
    }
    (sidecar.status().await["models"][0]["merging"].clone(), padding, least)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_quantises_as_it_runs_merges_equal_lengths_alone() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = patient(Manifest::of_tokens("int8", folder.path(), onnx::dynamic_int8));
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    sidecar.wait_for_line_with("only texts of equal length are computed together").await;
    let (merging, padding, least) = measure(&sidecar).await;
    assert_eq!(merging["equalLengthsOnly"], true, "{merging}");
    let ppm = merging["paddedDifferencePpm"].as_u64().unwrap();
    assert!(ppm > 1000, "{merging}");
    let metric = sidecar.metric("embark_padding_difference", &["int8"]).await;
    assert!((metric * 1e6 - ppm as f64).abs() <= 1.0, "{metric} {ppm}");
    assert!(padding == 0.0 && least >= 0.99, "padding {padding}, cosine {least}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_floats_merges_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::of_tokens("fp32", folder.path(), |ids| onnx::lookup(ids, "Relu"));
    let sidecar = Sidecar::serve(folder.path(), &patient(manifest)).await;
    let (merging, padding, least) = measure(&sidecar).await;
    assert_eq!(merging["equalLengthsOnly"], false, "{merging}");
    assert_eq!(merging["paddedDifferencePpm"], 0, "{merging}");
    assert!(padding > 0.0 && least >= 0.999_999, "padding {padding}, cosine {least}");
    sidecar.stop().await;
}

/// all-MiniLM-L6-v2 with dynamic int8, as Maven Central has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_quantised_minilm_merges_equal_lengths_and_gives_the_vectors_of_another_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = patient(Manifest::minilm_int8("minilm"));
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let merging = sidecar.status().await["models"][0]["merging"].clone();
    assert_eq!(merging["equalLengthsOnly"], true, "{merging}");
    let texts = [
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
        "a",
        "The quick brown fox jumps over the lazy dog, and nobody has ever asked the dog about it.",
    ];
    let right = right(&texts).await;
    let together = sidecar.embed(&texts).await;
    for ((text, found), right) in texts.iter().zip(&together).zip(&right) {
        let found = cosine(&found.vector, right);
        assert!(found >= 0.99, "{text}: {found}");
    }
    let padding = sidecar.metric("embark_computed_tokens_total", &["kind=\"padding\""]).await;
    assert_eq!(padding, 0.0);
    sidecar.stop().await;
}

/// The vectors of texts as onnxruntime gives them, each alone.
async fn right(texts: &[&str]) -> Vec<Vec<f32>> {
    let mut command =
        tokio::process::Command::new(programs::from_environment("EMBARK_TEST_PYTHON"));
    command
        .arg(programs::root().join("tests/serving/int8.py"))
        .arg(programs::from_environment("EMBARK_TEST_MINILM_INT8"));
    let finished = programs::run(command, texts.join("\n").as_bytes()).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    finished.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
