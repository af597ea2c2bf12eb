//! Contracts of two versions in one folder, as an operator writes them that is newer than the sidecar. There is no second
//! version yet: this one is made.

use std::{fs, path::Path};

use embark_crds::contract::files::{VERSIONS, file_name};
use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{sources, until},
};
use serde_json::json;

use crate::mounted::{contract, mount, options};

const PARTS: [&str; 2] = ["contract", "policy"];

#[tokio::test(flavor = "multi_thread")]
async fn file_of_a_later_version_beside_this_one_is_left_to_later_sidecars() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "tiny", &contract(&tiny("24h")));
    write_later(folder.path());
    let sidecar = Sidecar::start(&options(folder.path())).await;
    let (hash, message) = policy(&sidecar).await;
    assert_eq!(message, "");
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    // The versions are written together, and each sidecar follows its own.
    mount(folder.path(), "tiny", &contract(&tiny("1h")));
    write_later(folder.path());
    until("its own is followed", async || policy(&sidecar).await.0 != hash).await;
    assert_eq!(policy(&sidecar).await.1, "");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_that_reads_no_version_any_more_keeps_what_it_has_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "tiny", &contract(&tiny("24h")));
    let sidecar = Sidecar::start(&options(folder.path())).await;
    sidecar.embed(&["a"]).await;
    let (hash, _) = policy(&sidecar).await;
    write_later(folder.path());
    for part in PARTS {
        let part = folder.path().join("models/tiny").join(part);
        fs::remove_file(part.join(file_name(VERSIONS[0]))).unwrap();
    }
    until("it says why", async || policy(&sidecar).await.1.contains("policy: has none of v1.json"))
        .await;
    assert_eq!(policy(&sidecar).await.0, hash);
    assert_eq!(sources(&sidecar.embed(&["a", "b"]).await), [Source::HitMemory, Source::Computed]);
    assert_eq!(sidecar.get("/ready").await.0, 200);
    // An operator that writes this version is back.
    mount(folder.path(), "tiny", &contract(&tiny("1h")));
    until("what it says is followed", async || {
        let (found, message) = policy(&sidecar).await;
        found != hash && message.is_empty()
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_that_reads_no_version_stays_and_names_those_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    write_later(folder.path());
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    until("it says what it waits for", async || {
        let status = sidecar.model_status("tiny").await;
        status["message"].as_str().is_some_and(|words| words.contains("has none of v1.json"))
    })
    .await;
    assert_eq!(sidecar.get("/ready").await.0, 503);
    sidecar.stop().await;
}

fn tiny(ttl: &str) -> Manifest {
    Manifest::tiny("tiny").with("/spec/cache/ttl", ttl)
}

/// What this sidecar cannot know: another shape, in a file that is named so.
fn write_later(folder: &Path) {
    let later = VERSIONS[0] + 1;
    for part in PARTS {
        let part = folder.join("models/tiny").join(part);
        fs::create_dir_all(&part).unwrap();
        let contract = json!({"version": later, "models": [{"called": "tiny"}]});
        fs::write(part.join(file_name(later)), contract.to_string()).unwrap();
    }
}

/// What `/status` says of the policy: its hash, and what is wrong with its file.
async fn policy(sidecar: &Sidecar) -> (String, String) {
    let status = sidecar.model_status("tiny").await;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&status["policyHash"]), text(&status["cache"]["message"]))
}
