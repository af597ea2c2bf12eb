//! Checks of the spec gate readiness, and `self-test` writes them.

use std::{fs, path::Path};

use embark_sidecar::pb::client::ModelState;
use embark_tests::{
    Manifest, Sidecar,
    manifest::PANICS,
    programs::{Finished, embark},
    sidecar::{Options, until},
};
use serde_json::{Value, json};

const TEXT: &str = "The weather is lovely today.";

fn tiny() -> Manifest {
    Manifest::tiny("tiny")
}

/// One check of texts that are near, and how near they must be.
fn similar(min_cosine: &str) -> Value {
    json!([{
        "input": {"text": TEXT},
        "similarTo": {"text": "It is so sunny outside!"},
        "minCosine": min_cosine,
    }])
}

/// `self-test` of a file.
async fn self_test(folder: &Path, file: &Path, texts: &[&str]) -> Finished {
    let data = folder.join("data").display().to_string();
    let file = file.display().to_string();
    let mut arguments = vec!["self-test", &file, "--data-dir", &data, "--log-level", "error"];
    for text in texts {
        arguments.extend(["--text", text]);
    }
    embark(arguments, b"").await
}

/// The block that was printed, as it would stand in a spec.
fn block(finished: &Finished) -> Value {
    let value: Value = serde_saphyr::from_str(&finished.output)
        .unwrap_or_else(|error| panic!("{error}:\n{}", finished.output));
    value["selfTest"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_self_test_prints_passes_when_it_is_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let file = tiny().write(folder.path());
    let texts = [TEXT, "a \"quoted\": # text", "ein längerer Text, ☃"];
    let printed = self_test(folder.path(), &file, &texts).await;
    assert_eq!((printed.code, printed.errors.as_str()), (0, ""), "{printed:?}");
    let tests = block(&printed);
    let read: Vec<&str> =
        tests.as_array().unwrap().iter().map(|t| t["input"]["text"].as_str().unwrap()).collect();
    assert_eq!(read, texts);
    let pasted = tiny().with("/spec/selfTest", tests);
    let file = pasted.write(folder.path());
    let again = self_test(folder.path(), &file, &[]).await;
    assert_eq!((again.code, again.errors.as_str()), (0, ""), "{again:?}");
    for check in 0..texts.len() {
        let line = format!("# tiny: spec.selfTest[{check}]: cosine ");
        let found = again.output.lines().find_map(|l| l.strip_prefix(&line)).expect(&line);
        let (cosine, rest) = found.split_once(", ").unwrap();
        assert!(cosine.parse::<f64>().unwrap() > 0.999_99, "{found}");
        assert_eq!(rest, "at least 0.999: passed");
    }
    assert_eq!(block(&again).as_array().unwrap().len(), texts.len());
    // And serving gates on them.
    let sidecar = Sidecar::serve(folder.path(), &pasted).await;
    assert!(sidecar.metric("embark_self_test_min_cosine", &["tiny"]).await > 0.999_99);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_fails_keeps_the_model_from_being_ready_and_says_both_cosines() {
    let folder = tempfile::tempdir().unwrap();
    let failing = Manifest::tiny("failing").with("/spec/selfTest", similar("0.99"));
    let mut options = Options::new(folder.path(), &failing);
    let passing = Manifest::tiny("passing").with("/spec/selfTest", similar("0.2"));
    options.manifests.push(passing.write(folder.path()));
    let sidecar = Sidecar::start_listening(&options).await;
    until("one has failed", async || {
        sidecar.model("failing").await.unwrap().state() == ModelState::Failed
    })
    .await;
    let message = sidecar.model("failing").await.unwrap().message;
    let cosine = message
        .strip_prefix("spec.selfTest[0]: the cosine is ")
        .and_then(|rest| rest.strip_suffix(", at least 0.99 is wanted"))
        .unwrap_or_else(|| panic!("{message}"));
    let cosine: f64 = cosine.parse().unwrap();
    until("the other is ready", async || sidecar.model_status("passing").await["state"] == "ready")
        .await;
    for model in ["failing", "passing"] {
        let measured = sidecar.metric("embark_self_test_min_cosine", &[model]).await;
        assert!((measured - cosine).abs() < 1e-5, "{model}: {measured} {cosine}");
    }
    assert_eq!(sidecar.get("/ready").await.0, 503);
    sidecar.stop().await;

    let ended = self_test(folder.path(), &options.manifests[0], &[]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.output.starts_with("# failing: spec.selfTest[0]: cosine 0."), "{ended:?}");
    assert!(ended.output.lines().next().unwrap().ends_with(", at least 0.99: failed"));
    assert_eq!(ended.errors, format!("error: failing: {message}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_are_checked_by_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f64> = (0..13).map(|n| f64::from(n) + 0.5).collect();
    let tests = json!([{
        "input": {"tensor": values}, "similarTo": {"tensor": values}, "minCosine": "1",
    }]);
    let manifest = Manifest::wine("wine").with("/spec/selfTest", tests);
    let printed = self_test(folder.path(), &manifest.write(folder.path()), &[]).await;
    assert_eq!((printed.code, printed.errors.as_str()), (0, ""), "{printed:?}");
    let pasted = Manifest::wine("wine").with("/spec/selfTest", block(&printed));
    let sidecar = Sidecar::serve(folder.path(), &pasted).await;
    assert!(sidecar.metric("embark_self_test_min_cosine", &["wine"]).await > 0.999_99);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_whose_run_panics_fails_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let test = json!([{"input": {"text": PANICS}, "similarTo": {"text": "a"}, "minCosine": "0"}]);
    let manifest =
        Manifest::poisonous("poisonous", folder.path(), (8, 8)).with("/spec/selfTest", test);
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    let sentence = "error: poisonous: spec.selfTest[0].input: the model's runtime refused to run: attempt to divide by zero";
    assert_eq!((ended.code(), ended.sentences().as_slice()), (1, &[sentence][..]), "{}", ended.log);
}

#[tokio::test]
async fn self_test_says_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = tiny().write(folder.path());
    let nothing = self_test(folder.path(), &file, &[]).await;
    let line = "# tiny: has no spec.selfTest; give texts by --text\n";
    assert_eq!((nothing.code, nothing.output.as_str()), (0, line), "{nothing:?}");
    let wine = Manifest::wine("wine").write(folder.path());
    let texts = self_test(folder.path(), &wine, &["a"]).await;
    let sentence = "error: --text: model \"wine\" takes no text\n";
    assert_eq!((texts.code, texts.errors.as_str()), (2, sentence), "{texts:?}");
    let broken = folder.path().join("broken.yaml");
    fs::write(&broken, "a: [").unwrap();
    assert_eq!(self_test(folder.path(), &broken, &[]).await.code, 2);
    let other = tiny().with("/spec/model/source/sha256", "0".repeat(64)).write(folder.path());
    let ended = self_test(folder.path(), &other, &["a"]).await;
    let sentence = "error: tiny: spec.model.source.sha256: is 0000";
    assert!(ended.code == 1 && ended.errors.starts_with(sentence), "{ended:?}");
}
