//! Models as a pod has them: contracts that the operator wrote, in mounted folders.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use embark_crds::{
    contract::{Contract, files::file_name},
    manifest,
    resolve::{Target, resolve},
};
use embark_tests::{
    Manifest, Sidecar, programs,
    sidecar::{Options, until},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

#[tokio::test(flavor = "multi_thread")]
async fn mounted_model_is_served_as_its_manifest_would_be() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "tiny", &contract(&Manifest::tiny("tiny")));
    // What a ConfigMap's mount hides in a folder is no model.
    fs::create_dir(folder.path().join("models/..data")).unwrap();
    let mounted = Sidecar::start(&options(folder.path())).await;
    let by_hand = tempfile::tempdir().unwrap();
    let by_hand = Sidecar::serve(by_hand.path(), &Manifest::tiny("tiny")).await;
    assert_eq!(mounted.space().await, by_hand.space().await);
    let (found, expected) = (mounted.embed(&["a"]).await, by_hand.embed(&["a"]).await);
    assert_eq!(found[0].vector, expected[0].vector);
    assert_eq!(mounted.model_status("tiny").await["policyHash"].as_str().unwrap().len(), 64);
    mounted.stop().await;
    by_hand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_whose_models_cannot_be_served_stays_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = Manifest::tiny("wrong").with("/spec/model/source/sha256", "0".repeat(64));
    mount(folder.path(), "wrong", &contract(&wrong));
    let unbuilt =
        Manifest::tiny("unbuilt").with("/spec/endpoint/tokenSecretRef", json!({"name": "tokens"}));
    mount(folder.path(), "unbuilt", &contract(&unbuilt));
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    for (model, field) in
        [("wrong", "spec.model.source.sha256"), ("unbuilt", "spec.endpoint.tokenSecretRef: is")]
    {
        until("the model has failed", async || {
            sidecar.model_status(model).await["state"] == "failed"
        })
        .await;
        let status = sidecar.model_status(model).await;
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(field), "{message}");
    }
    assert_eq!(sidecar.get("/live").await.0, 200);
    assert_eq!(sidecar.get("/ready").await.0, 503);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_that_cannot_be_read_is_told_with_its_file_and_served_once_it_can() {
    let good = contract(&Manifest::tiny("tiny"));
    let version = file_name(good.serving.version);
    for (change, file, state, sentence) in [
        (Change::Remove, "contract", "pending", "has none of v1.json"),
        (Change::Remove, "policy", "pending", "has none of v1.json"),
        (Change::Write("{}"), "policy/v1.json", "failed", "is no contract: missing field"),
        (Change::Write("\u{0}"), "contract/v1.json", "failed", "is no contract: expected value"),
        (Change::Rename, "", "failed", "holds the contract of another model, \"tiny\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "tiny", &good);
        let models = folder.path().join("models");
        let (mut named, mut name) = (models.join("tiny").join(file), "tiny");
        match change {
            Change::Remove => fs::remove_file(named.join(&version)).unwrap(),
            Change::Write(text) => fs::write(&named, text).unwrap(),
            Change::Rename => {
                (named, name) = (models.join("other"), "other");
                fs::rename(models.join("tiny"), &named).unwrap();
            }
        }
        let sidecar = Sidecar::start_listening(&options(folder.path())).await;
        let status = sidecar.model_status(name).await;
        assert_eq!(status["state"], state, "{status}");
        let message = status["message"].as_str().unwrap();
        let place = named.display().to_string();
        assert!(message.starts_with(&place) && message.contains(sentence), "{message}");
        assert_eq!(sidecar.get("/live").await.0, 200);
        let (code, why) = sidecar.get("/ready").await;
        assert!(code == 503 && why.contains(sentence), "{code}: {why}");
        // What is mounted is mended, and nobody restarts anything.
        let mut mended = good.clone();
        name.clone_into(&mut mended.serving.name);
        mount(folder.path(), name, &mended);
        until("it is served", async || sidecar.get("/ready").await.0 == 200).await;
        assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn model_without_a_contract_keeps_no_other_from_being_served() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "tiny", &contract(&Manifest::tiny("tiny")));
    fs::create_dir_all(folder.path().join("models/absent/contract")).unwrap();
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    until("the good one answers", async || sidecar.model_status("tiny").await["state"] == "ready")
        .await;
    let status = sidecar.model_status("absent").await;
    assert_eq!(status["state"], "pending", "{status}");
    // It is followed like any other from its first contract on.
    let mut late = contract(&Manifest::tiny("absent"));
    mount(folder.path(), "absent", &late);
    until("it is served", async || sidecar.get("/ready").await.0 == 200).await;
    late.serving.batching.max_items = 1;
    mount(folder.path(), "absent", &late);
    sidecar.wait_for_line_with("took over from the version before").await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_without_any_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("models")).unwrap();
    let ended = Sidecar::fail(&options(folder.path())).await;
    assert!(ended.log.contains("has no folder of a model"), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_off_mounted_volumes_and_with_mounted_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = programs::root().join("examples/models/tiny-static-minilm");
    let (address, asked) = guarded(tiny.join("tokenizer.json"), "Bearer hush").await;
    let manifest = Manifest::tiny("tiny")
        .with("/spec/model/source/uri", "pvc://models/tiny/model.onnx")
        .with("/spec/input/text/tokenizer/uri", format!("http://{address}/tokenizer.json"))
        .with("/spec/input/text/tokenizer/secretRef", json!({"name": "credentials"}));
    mount(folder.path(), "tiny", &contract(&manifest));
    let mounts = folder.path().join("models/tiny");
    let (volume, secret) = (mounts.join("volumes/models/tiny"), mounts.join("secrets/tokenizer"));
    fs::create_dir_all(&volume).unwrap();
    fs::copy(tiny.join("model.onnx"), volume.join("model.onnx")).unwrap();
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    // The Secret comes to be after the pod.
    sidecar.wait_for_line_with("the Secret").await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("token"), "hush").unwrap();
    sidecar.wait_until_ready().await;
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let (_, status) = sidecar.get("/status").await;
    assert!(!sidecar.log().contains("hush") && !status.contains("hush"), "{}", sidecar.log());
    sidecar.stop().await;
}

/// A server of one file for who says `authorization`; how often it was asked.
async fn guarded(file: PathBuf, authorization: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let knows = format!("authorization: {authorization}\r\n");
            let (status, body) = match request.contains(&knows) {
                true => ("200 OK", fs::read(&file).unwrap()),
                false => ("401 Unauthorized", Vec::new()),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        }
    });
    (address, asked)
}

/// What is done to a folder that was good.
enum Change {
    Remove,
    Write(&'static str),
    Rename,
}

pub(crate) fn options(folder: &Path) -> Options {
    let (models, data) = (Some(folder.join("models")), folder.join("data"));
    Options { models, data, ..Options::default() }
}

/// What the operator makes of a manifest.
pub(crate) fn contract(manifest: &Manifest) -> Contract {
    let manifest = manifest::read(&manifest.to_string()).unwrap().remove(0);
    resolve(&manifest.metadata.name, &manifest.spec, Target::Cluster).unwrap()
}

/// Writes a contract as ConfigMaps are mounted.
pub(crate) fn mount(folder: &Path, name: &str, contract: &Contract) {
    let model = folder.join("models").join(name);
    for (part, json) in [("contract", contract.serving_json()), ("policy", contract.policy_json())]
    {
        let part = model.join(part);
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join(file_name(contract.serving.version)), json).unwrap();
    }
}
