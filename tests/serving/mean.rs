//! `mean`: the mean vector of many texts, ready to be a default vector.

use std::{fs, path::Path};

use embark_tests::{
    Manifest, Sidecar,
    programs::{self, Finished, embark},
    sidecar::{difference, sources},
};
use serde_json::{Value, json};

/// `mean` of a file against this server, with this standard input.
async fn mean(sidecar: &Sidecar, file: &Path, input: &str) -> Finished {
    let file = file.display().to_string();
    let model = ["--model", "tiny", file.as_str()];
    let all = ["mean", "--address", sidecar.grpc()].into_iter().chain(model);
    embark(all, input.as_bytes()).await
}

/// What was printed, as a manifest's reader takes it.
fn default_vector(finished: &Finished) -> (Value, Vec<f32>) {
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""), "{finished:?}");
    let read: Value = serde_saphyr::from_str(&finished.output).expect("it is YAML");
    assert_eq!(read["type"], "Values");
    let values = serde_json::from_value(read["values"].clone()).expect("numbers");
    (read, values)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mean_of_many_texts_is_a_default_vector_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    // What callers get by default is shorter, and what is not cached is the default vector: the mean knows neither.
    let manifest = Manifest::tiny("tiny")
        .with("/spec/model/output/truncateDimensions", 8)
        .with("/spec/cache/onMiss", "ReturnDefault");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let sentences = programs::root().join("examples/sentences.txt");
    let (block, values) = default_vector(&mean(&sidecar, &sentences, "").await);

    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let served = Sidecar::serve(
        folders[0].path(),
        &Manifest::tiny("tiny")
            .with("/spec/cache/onMiss", "ReturnDefault")
            .with("/spec/cache/defaultVector", block),
    )
    .await;
    let unknown = served.embed(&["never seen"]).await;
    assert_eq!(sources(&unknown), [embark_sidecar::pb::client::Source::Default]);
    assert!(difference(&unknown[0].vector, &values) <= 1e-6);

    let text = fs::read_to_string(sentences).unwrap();
    let texts: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut sum = vec![0.0_f64; 128];
    let by_hand = Sidecar::serve(folders[1].path(), &Manifest::tiny("tiny")).await;
    for result in by_hand.embed(&texts).await {
        sum.iter_mut().zip(&result.vector).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    let apart =
        values.iter().zip(&sum).map(|(value, sum)| (f64::from(*value) - sum / length).abs());
    assert!(apart.fold(0.0, f64::max) <= 1e-5, "it is the mean, of length 1");
    for sidecar in [sidecar, served, by_hand] {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_lines_are_passed_over_and_a_bad_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::tiny("tiny").with("/spec/input/text/sizeLimit", "16");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let input = Path::new("-");
    let (_, spaced) = default_vector(&mean(&sidecar, input, "\none\n\r\n  \ntwo\n\n").await);
    let (_, plain) = default_vector(&mean(&sidecar, input, "one\ntwo").await);
    assert_eq!(spaced, plain);

    let long = format!("{}\n\n{}\n", "good\n".repeat(40), "x".repeat(17));
    let finished = mean(&sidecar, input, &long).await;
    assert_eq!((finished.code, finished.output.as_str()), (1, ""), "{finished:?}");
    let sentence = "error: standard input: line 43: TEXT_TOO_LONG: ";
    assert!(finished.errors.starts_with(sentence), "{}", finished.errors);

    let nothing = mean(&sidecar, input, "\n\n").await;
    let sentence = "standard input: has no inputs; each line that is not blank is one";
    assert_eq!((nothing.code, nothing.errors), (1, format!("error: {sentence}\n")));
    let missing = mean(&sidecar, &folder.path().join("none.txt"), "").await;
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.errors.contains("none.txt: cannot be read: "), "{}", missing.errors);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_normalise_has_a_plain_mean() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::tiny("tiny").with("/spec/model/output/normalization", json!("None"));
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let (_, values) = default_vector(&mean(&sidecar, Path::new("-"), "a cat\na theorem").await);
    let vectors = sidecar.embed(&["a cat", "a theorem"]).await;
    let half = |(a, b): (&f32, &f32)| (a + b) / 2.0;
    let right: Vec<f32> = vectors[0].vector.iter().zip(&vectors[1].vector).map(half).collect();
    assert!(difference(&values, &right) <= 1e-6);
    sidecar.stop().await;
}
