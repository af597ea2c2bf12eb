//! `check`: what is said of manifests that nobody serves.

use std::fs;

use embark_tests::{
    Manifest,
    programs::{self, embark},
};
use serde_json::json;

/// What `check` says of good manifests at the end.
const NOT_OPENED: &str =
    "The manifests alone were checked: the files that they name were not opened.\n";

fn tiny() -> Manifest {
    Manifest::tiny("tiny")
}

#[tokio::test]
async fn check_answers_with_the_sentences_of_the_custom_resource_definition() {
    let folder = tempfile::tempdir().unwrap();
    let crd = programs::root().join("crds/embeddingmodels.embark.dev.yaml");
    let crd = fs::read_to_string(crd).unwrap();
    let sentences: Vec<&str> =
        crd.lines().filter_map(|line| line.split_once("message: ")).map(|(_, text)| text).collect();
    let rules = [
        ("/spec/cache/ttl", json!("0s"), "spec.cache.ttl: \"0s\""),
        ("/spec/cache/memory/sizeLimit", json!("1Ki"), "spec.cache.memory.sizeLimit: \"1Ki\""),
        ("/spec/cache/disk/sizeLimit", json!("1Mi"), "spec.cache.disk.sizeLimit: \"1Mi\""),
        ("/spec/input/text/defaultPrompt", json!("x"), "spec.input.text.defaultPrompt: \"x\""),
        (
            "/spec/model/output/truncateDimensions",
            json!(129),
            "spec.model.output.truncateDimensions: 129",
        ),
        ("/spec/batching/maxDelay", json!("50ms"), "spec.batching.maxDelay: \"50ms\""),
        ("/spec/model/source/uri", json!("ftp://a/b"), "spec.model.source.uri: \"ftp://a/b\""),
        ("/spec/input/tensor", json!({"shape": [1]}), "spec.input:"),
        ("/metadata/name", json!("Tiny"), "metadata.name: \"Tiny\""),
    ];
    for (pointer, value, place) in rules {
        let file = tiny().with(pointer, value).write(folder.path());
        let finished = embark(["check".as_ref(), file.as_os_str()], b"").await;
        assert_eq!((finished.code, finished.output.as_str()), (1, ""), "{finished:?}");
        assert_eq!(finished.errors.lines().count(), 1, "{finished:?}");
        let (_, said) = finished.errors.trim_end().split_once(&format!("{place} ")).unwrap();
        assert!(sentences.contains(&said), "{said:?} is no sentence of the CRD");
    }
}

#[tokio::test]
async fn check_says_who_accepts_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let uri = "/spec/model/source/uri";
    let both = Manifest::tiny("both").write(folder.path());
    let local = Manifest::tiny("local").with(uri, "file://model.onnx").write(folder.path());
    let cluster =
        Manifest::tiny("cluster").with(uri, "pvc://models/tiny.onnx").write(folder.path());
    let [both, local, cluster] = [both, local, cluster].map(|file| file.display().to_string());
    let finished = embark(["check", &both, &local, &cluster], b"").await;
    let expected = format!(
        "{both}: both: good (local and cluster)\n{local}: local: good (local only)\n{cluster}: cluster: good (cluster only)\n{NOT_OPENED}"
    );
    assert_eq!((finished.code, finished.output), (0, expected), "{}", finished.errors);

    let refused = async |target: &str, file: &str, sentence: &str| {
        let finished = embark(["check", "--target", target, file], b"").await;
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.errors.contains(sentence), "{finished:?}");
    };
    refused(
        "cluster",
        &local,
        "spec.model.source.uri: \"file://model.onnx\" cannot be read in a cluster",
    )
    .await;
    refused(
        "local",
        &cluster,
        "spec.model.source.uri: \"pvc://models/tiny.onnx\" can be read in a cluster only",
    )
    .await;
    let finished = embark(["check", "--target", "local", &local], b"").await;
    let said = format!("{local}: local: good (local)\n{NOT_OPENED}");
    assert_eq!((finished.code, finished.output), (0, said));
    let finished = embark(["check", "--target", "cluster", &cluster], b"").await;
    let said = format!("{cluster}: cluster: good (cluster)\n{NOT_OPENED}");
    assert_eq!((finished.code, finished.output), (0, said));
}

#[tokio::test]
async fn check_knows_what_is_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let uri = "builtin://tiny-static-minilm/modle.onnx";
    let file = tiny().with("/spec/model/source/uri", uri).write(folder.path());
    let file = file.display().to_string();
    for target in [&[][..], &["--target", "local"], &["--target", "cluster"]] {
        let finished = embark([&["check", &file], target].concat(), b"").await;
        let builtin = "builtin://tiny-static-minilm";
        let sentence = format!(
            "spec.model.source.uri: {uri} does not exist; built in: {builtin}/model.onnx, {builtin}/tokenizer.json"
        );
        assert_eq!(finished.errors, format!("error: {file}: tiny: {sentence}\n"));
        assert_eq!((finished.code, finished.output.as_str()), (1, ""));
    }
}

#[tokio::test]
async fn check_tells_of_a_name_that_stands_twice() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["a.yaml", "b.yaml"].map(|name| folder.path().join(name));
    fs::write(&first, tiny().to_string()).unwrap();
    fs::write(&second, tiny().to_string()).unwrap();
    let [first, second] = [first, second].map(|file| file.display().to_string());
    let twice =
        format!("error: metadata.name: \"tiny\" is given more than once: {first}, {second}\n");
    let finished = embark(["check", &first, &second], b"").await;
    assert_eq!((finished.code, &finished.errors), (1, &twice));
    // Namespaces keep names apart in a cluster, and there alone.
    fs::write(&second, tiny().with("/metadata/namespace", "other").to_string()).unwrap();
    let finished = embark(["check", &first, &second], b"").await;
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""));
    let finished = embark(["check", "--target", "local", &first, &second], b"").await;
    assert_eq!((finished.code, &finished.errors), (1, &twice));
}

#[tokio::test]
async fn check_tells_of_every_file() {
    let folder = tempfile::tempdir().unwrap();
    Manifest::tiny("good").write(folder.path());
    Manifest::tiny("rule").with("/spec/cache/ttl", "0s").write(folder.path());
    let structure = Manifest::tiny("structure").with("/spec/input/text/maxTokens", "many");
    structure.with("/spec/cache/mode", "Disk").write(folder.path());
    let finished = embark(["check".as_ref(), folder.path().as_os_str()], b"").await;
    assert_eq!(finished.code, 1);
    let place = |name: &str| folder.path().join(format!("{name}.yaml")).display().to_string();
    let said = format!("{}: good: good (local and cluster)\n{NOT_OPENED}", place("good"));
    assert_eq!(finished.output, said);
    for said in [
        format!("{}: rule: spec.cache.ttl: \"0s\" must be above 0s", place("rule")),
        format!(
            "{}: spec.cache.mode: \"Disk\" must be one of Disabled, Memory, MemoryAndDisk",
            place("structure")
        ),
        format!(
            "{}: spec.input.text.maxTokens: \"many\" must be a whole number",
            place("structure")
        ),
    ] {
        assert!(
            finished.errors.lines().any(|line| line == said),
            "{said}\nin\n{}",
            finished.errors
        );
    }
    assert_eq!(finished.errors.lines().count(), 3, "{}", finished.errors);
}

#[tokio::test]
async fn the_examples_are_good() {
    let finished =
        embark(["check".as_ref(), programs::root().join("examples").as_os_str()], b"").await;
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""));
    let said: Vec<&str> = finished.output.lines().collect();
    assert!(said.len() >= 2, "{said:?}");
    assert!(
        said.iter().any(|line| line.ends_with("quickstart: good (local and cluster)")),
        "{said:?}"
    );
    assert!(said.iter().any(|line| line.ends_with("minilm: good (local only)")), "{said:?}");
}
