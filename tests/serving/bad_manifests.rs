//! Manifests that are refused: in one sentence for each thing that is wrong, all of them at once, before anything is done.

use std::{fs, path::Path};

use embark_tests::{
    Manifest, Sidecar,
    programs::embark,
    sidecar::{Ended, Options},
};
use serde_json::json;
use tokio::net::TcpListener;

/// Starts a server with these manifests, on a port that is taken: it must not come so far as to notice.
async fn serve(folder: &Path, manifests: &[&Path]) -> Ended {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let options = Options {
        manifests: manifests.iter().map(|path| path.to_path_buf()).collect(),
        data: folder.join("data"),
        arguments: vec!["--listen".into(), port.into()],
        ..Options::default()
    };
    let ended = Sidecar::fail(&options).await;
    assert_eq!(ended.code(), 2, "{}", ended.log);
    assert!(!options.data.exists(), "a refused manifest leaves nothing behind");
    ended
}

/// What a server and `check` say of a file, without the file's name. Both must say the same.
async fn refused(content: &[u8]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.yaml");
    fs::write(&file, content).unwrap();
    let served = serve(folder.path(), &[&file]).await;
    let checked = embark(["check".as_ref(), file.as_os_str()], b"").await;
    assert_eq!(checked.code, 1, "{checked:?}");
    let said: Vec<&str> = checked.errors.lines().collect();
    assert_eq!(served.sentences(), said);
    let place = format!("{}: ", file.display());
    let line = |line: &&str| {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        line.strip_prefix(&place).expect("each line names the file").to_owned()
    };
    said.iter().map(line).collect()
}

async fn refused_manifest(manifest: &Manifest) -> Vec<String> {
    refused(manifest.to_string().as_bytes()).await
}

fn tiny() -> Manifest {
    Manifest::tiny("tiny")
}

#[tokio::test]
async fn an_unknown_field_is_named_with_the_nearest_known_one() {
    let manifest = tiny().with("/spec/cache/tll", "1h");
    let expected = ["spec.cache.tll: is not a known field; did you mean ttl?"];
    assert_eq!(refused_manifest(&manifest).await, expected);
}

#[tokio::test]
async fn an_input_of_two_kinds_is_refused() {
    let manifest = tiny().with("/spec/input/tensor", json!({"shape": [13]}));
    let sentence = "exactly one of text, image, tensor and categorical must be set";
    let expected = [format!("tiny: spec.input: {sentence}")];
    assert_eq!(refused_manifest(&manifest).await, expected);
}

#[tokio::test]
async fn a_source_without_digest_is_refused() {
    let manifest = tiny().without("/spec/model/source/sha256");
    assert_eq!(refused_manifest(&manifest).await, ["spec.model.source.sha256: is required"]);
}

#[tokio::test]
async fn a_number_where_a_duration_is_due_is_told_of_its_unit_at_once() {
    let sentence = "must be a duration with its unit, such as 24h, 1h30m or 50ms";
    for (value, shown) in [(json!(24), "24"), (json!("24"), "\"24\"")] {
        let manifest = tiny().with("/spec/cache/ttl", value);
        let lines = refused_manifest(&manifest).await;
        assert_eq!(lines, [format!("spec.cache.ttl: {shown} {sentence}")]);
    }
}

#[tokio::test]
async fn a_digest_of_another_length_is_told_its_length() {
    let pinned = format!("sha256:{}", "0".repeat(64));
    let lines = refused_manifest(&tiny().with("/spec/model/source/sha256", pinned)).await;
    let sentence = "has 71 characters, it must be 64 hex digits";
    assert!(lines.len() == 1 && lines[0].ends_with(sentence), "{lines:?}");
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let manifest = tiny()
        .with("/spec/cache/tll", "1h")
        .with("/spec/cache/waitBudget", "50ms")
        .with("/spec/cache/onMiss", "Fail")
        .with("/spec/model/output/dimensions", 0)
        .without("/spec/model/source/sha256");
    let lines = refused_manifest(&manifest).await;
    for field in [
        "spec.cache.tll: is not a known field",
        "spec.cache.waitBudget: \"50ms\" goes with onMiss Wait only",
        "spec.model.output.dimensions: 0 must be from 1 to",
        "spec.model.source.sha256: is required",
    ] {
        assert_eq!(lines.iter().filter(|l| l.contains(field)).count(), 1, "{field}: {lines:#?}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[tokio::test]
async fn every_bad_file_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| Manifest::tiny(name);
    of("structure").with("/spec/cache/tll", "1h").write(folder.path());
    of("rule").with("/spec/cache/ttl", "0s").write(folder.path());
    let tokens = json!({"name": "tokens"});
    of("late").with("/spec/endpoint/tokenSecretRef", tokens).write(folder.path());
    of("good").write(folder.path());
    let ended = serve(folder.path(), &[folder.path()]).await;
    let file = |name: &str| folder.path().join(format!("{name}.yaml")).display().to_string();
    let expected = [
        format!("{}: spec.cache.tll: is not a known field; did you mean ttl?", file("structure")),
        format!(
            "{}: late: spec.endpoint.tokenSecretRef: is asked for, and the server has none; give it --token-file",
            file("late")
        ),
        format!("{}: rule: spec.cache.ttl: \"0s\" must be above 0s", file("rule")),
    ];
    assert_eq!(ended.sentences(), expected);
}

#[tokio::test]
async fn what_is_not_yaml_is_refused_with_its_line() {
    let lines = refused(b"apiVersion: embark.dev/v1alpha1\nkind: [EmbeddingModel\n").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("line ") && lines[0].contains("is not YAML"), "{lines:?}");
}

#[tokio::test]
async fn what_is_not_utf8_is_refused() {
    assert_eq!(refused(b"apiVersion: \xff\xfe").await, ["is not UTF-8 text"]);
}

#[tokio::test]
async fn another_kind_is_refused() {
    let manifest = tiny().with("/kind", "Deployment").with("/apiVersion", "apps/v1");
    let expected = [
        "apiVersion: \"apps/v1\" must be embark.dev/v1alpha1",
        "kind: \"Deployment\" must be EmbeddingModel",
    ];
    assert_eq!(refused_manifest(&manifest).await, expected);
}

#[tokio::test]
async fn a_file_or_folder_without_models_is_refused() {
    for empty in [&b""[..], b"# nothing\n", b"---\n---\n"] {
        assert_eq!(refused(empty).await, ["no EmbeddingModel in it"]);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "no manifest").unwrap();
    let ended = serve(folder.path(), &[folder.path()]).await;
    let expected = format!("error: {}: no EmbeddingModel in it", folder.path().display());
    assert_eq!(ended.sentences(), [expected]);
}

#[tokio::test]
async fn a_file_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.yaml");
    let ended = serve(folder.path(), &[&file]).await;
    let sentence = "cannot be read: No such file or directory (os error 2)";
    assert_eq!(ended.sentences(), [format!("error: {}: {sentence}", file.display())]);
}

#[tokio::test]
async fn a_name_that_is_given_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    fs::write(&first, tiny().to_string()).unwrap();
    fs::write(&second, tiny().to_string()).unwrap();
    let ended = serve(folder.path(), &[&first, &second]).await;
    let expected = format!(
        "error: metadata.name: \"tiny\" is given more than once: {}, {}",
        first.display(),
        second.display()
    );
    assert_eq!(ended.sentences(), [expected]);
}

#[tokio::test]
async fn a_volume_claim_is_for_clusters_alone() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = tiny().with("/spec/model/source/uri", "pvc://models/tiny.onnx");
    let ended = serve(folder.path(), &[&manifest.write(folder.path())]).await;
    let sentences = ended.sentences();
    let field =
        "tiny: spec.model.source.uri: \"pvc://models/tiny.onnx\" can be read in a cluster only";
    assert!(sentences.len() == 1 && sentences[0].contains(field), "{sentences:?}");
}

#[tokio::test]
async fn a_manifest_of_two_mebibytes_is_refused_by_its_size() {
    let mut text = tiny().to_string();
    text.push_str("\n# ");
    text.push_str(&"x".repeat(2 << 20));
    let lines = refused(text.as_bytes()).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with("has more than 1048576 bytes"), "{lines:?}");
}

#[tokio::test]
async fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let lines = refused(text.as_bytes()).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("is not YAML that can be read"), "{lines:?}");
}
