//! Models as a pod has them: contracts that the operator wrote, in mounted folders.

use std::{fs, path::Path};

use embark_crds::{
    contract::{Contract, files::file_name},
    manifest,
    resolve::{Target, resolve},
};
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, until},
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
    let unbuilt = Manifest::tiny("unbuilt").with("/spec/cache/negativeTTL", "1h");
    mount(folder.path(), "unbuilt", &contract(&unbuilt));
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    for (model, field) in
        [("wrong", "spec.model.source.sha256"), ("unbuilt", "spec.cache.negativeTTL: is not")]
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
async fn contract_that_cannot_be_read_is_told_with_its_file() {
    let good = contract(&Manifest::tiny("tiny"));
    let version = file_name(good.serving.version);
    for (change, file, sentence) in [
        (Change::Remove, "contract", "has none of v1.json"),
        (Change::Write("{}"), "policy/v1.json", "is no contract: missing field"),
        (Change::Write("\u{0}"), "contract/v1.json", "is no contract: expected value"),
        (Change::Rename, "", "holds the contract of another model, \"tiny\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "tiny", &good);
        let models = folder.path().join("models");
        let mut named = models.join("tiny").join(file);
        match change {
            Change::Remove => fs::remove_file(named.join(&version)).unwrap(),
            Change::Write(text) => fs::write(&named, text).unwrap(),
            Change::Rename => {
                named = models.join("other");
                fs::rename(models.join("tiny"), &named).unwrap();
            }
        }
        let ended = Sidecar::fail(&options(folder.path())).await;
        assert_eq!(ended.code(), 2, "{}", ended.log);
        let sentences = ended.sentences();
        let place = format!("error: {}", named.display());
        let [line] = sentences.as_slice() else { panic!("{sentences:?}") };
        assert!(line.starts_with(&place) && line.contains(sentence), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("models")).unwrap();
    let ended = Sidecar::fail(&options(folder.path())).await;
    assert!(ended.log.contains("has no folder of a model"), "{}", ended.log);
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
