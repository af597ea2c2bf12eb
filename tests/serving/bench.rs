//! `bench`: a load that users can make.

use embark_tests::{Manifest, Sidecar, programs::embark};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_sent_at_its_rate_and_told_by_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let load = "--rate 200 --duration 2s --keys 20 --items 3 --seed 7 --json";
    let arguments = ["bench", "--address", sidecar.grpc()];
    let finished = embark(arguments.into_iter().chain(load.split(' ')), b"").await;
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.output).unwrap();
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    // Arrivals are random, and the same for a seed: four hundred, give or take.
    let answered = number("/answered");
    assert!((300.0..500.0).contains(&answered), "{report}");
    let items: f64 = report["items"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
    assert_eq!(items, answered * 3.0);
    assert!(number("/items/COMPUTED") >= 15.0 && number("/items/HIT_MEMORY") > 100.0, "{report}");
    assert_eq!(report["failed"], serde_json::json!({}));
    assert!(
        number("/latency_ms/p50") > 0.0 && number("/latency_ms/max") >= number("/latency_ms/p99")
    );
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_told_by_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let load = "--rate 100 --duration 300ms --keys 5 --on-miss fail";
    let arguments = ["bench", "--address", sidecar.grpc()];
    let finished = embark(arguments.into_iter().chain(load.split(' ')), b"").await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.output.contains("failed   MISS "), "{finished:?}");
    assert_eq!(finished.errors, "error: no call was answered\n");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    for (wrong, sentence) in [
        ("--rate 0", "is not a number from 0.001 to 1000000"),
        ("--zipf -1", "is not a number from 0 to 10"),
        ("--keys 10000001", "is not a whole number from 1 to 10000000"),
        ("--items 5000", "--items: 5000 given; the model takes 1024"),
    ] {
        let arguments = ["bench", "--address", sidecar.grpc()];
        let finished = embark(arguments.into_iter().chain(wrong.split(' ')), b"").await;
        assert_eq!(finished.code, 2, "{finished:?}");
        assert!(finished.errors.contains(sentence), "{wrong}: {}", finished.errors);
    }
    sidecar.stop().await;
}
