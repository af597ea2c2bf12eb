//! Children as files, one folder a case, reviewed as diffs. `BLESS=1` writes them anew.

use std::{fs, path::PathBuf};

use embark_crds::v1alpha1::EmbeddingModel;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::{
    args,
    controller::validate::{ValidatedModel, validate},
};

#[test]
fn the_quick_start_becomes_its_children() {
    compare("quickstart");
}

#[test]
fn every_field_finds_its_place() {
    compare("everything");
}

#[test]
fn a_policy_rolls_no_pod_and_a_contract_rolls_every_pod() {
    let before = built(model("quickstart"));
    let mut policy = model("quickstart");
    policy.spec.cache.ttl = "1h".into();
    let after = built(policy);
    assert_eq!(after.deployment, before.deployment);
    assert_ne!(after.config_maps, before.config_maps);
    let mut contract = model("quickstart");
    contract.spec.cache.memory.size_limit = "64Mi".into();
    assert_ne!(built(contract).deployment, before.deployment);
}

fn compare(case: &str) {
    let actual = yaml(&built(model(case)));
    let path = folder(case).join("expected.yaml");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{} differs; see it with BLESS=1 and git diff", path.display());
}

fn folder(case: &str) -> PathBuf {
    PathBuf::from("tests/golden").join(case)
}

fn model(case: &str) -> EmbeddingModel {
    let text = fs::read_to_string(folder(case).join("model.yaml")).unwrap();
    let mut manifests = embark_crds::manifest::read(&text).unwrap();
    let manifest = manifests.remove(0);
    let metadata = ObjectMeta {
        name: Some(manifest.metadata.name),
        namespace: Some("models".to_owned()),
        uid: Some("00000000-0000-0000-0000-000000000000".to_owned()),
        ..ObjectMeta::default()
    };
    EmbeddingModel { metadata, spec: manifest.spec, status: None }
}

fn validated(model: &EmbeddingModel) -> ValidatedModel {
    validate(model).unwrap()
}

fn built(model: EmbeddingModel) -> Prepared {
    let settings = Settings::of(&args::Run {
        sidecar_image: "embark-sidecar:golden".to_owned(),
        namespace: "system".to_owned(),
        identity: "operator-0".to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        webhook: args::Webhook::default(),
    });
    build(&validated(&model), &settings)
}

fn yaml(prepared: &Prepared) -> String {
    let mut children: Vec<(&str, Value)> = Vec::new();
    children.extend(prepared.service_account.iter().map(|one| ("ServiceAccount", json!(one))));
    children.extend(prepared.config_maps.iter().map(|one| ("ConfigMap", json!(one))));
    children.extend(prepared.services.iter().map(|one| ("Service", json!(one))));
    children.push(("Deployment", json!(prepared.deployment)));
    let autoscaler = prepared.autoscaler.iter();
    children.extend(autoscaler.map(|one| ("HorizontalPodAutoscaler", json!(one))));
    children.push(("PodDisruptionBudget", json!(prepared.disruption_budget)));
    let mut text = format!("# Generated with BLESS=1; replicas: {}\n", prepared.replicas);
    for (kind, child) in children {
        let document = json!({ "kind": kind, "child": child });
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&document).unwrap());
    }
    text
}
