//! Children as files, one folder a case, reviewed as diffs. `BLESS=1` writes them anew.

use std::{fs, path::PathBuf};

use embark_crds::v1alpha1::EmbeddingModel;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::{
    args,
    controller::validate::{ValidatedModel, hash, validate},
};

#[test]
fn every_feature_becomes_its_children() {
    let mut cases = cases();
    cases.retain(|case| !is_as_expected(case));
    assert!(cases.is_empty(), "{cases:?} differ; see how with BLESS=1 and git diff");
}

#[test]
fn the_order_of_fields_in_a_manifest_changes_no_byte() {
    for case in cases() {
        let text = fs::read_to_string(folder(&case).join("model.yaml")).unwrap();
        let manifest: Value = serde_saphyr::from_str(&text).unwrap();
        let expected = yaml(&built(read(&text)));
        for turn in 0..8 {
            let text = turned(&manifest, turn);
            assert_eq!(yaml(&built(read(&text))), expected, "{case}: {text}");
        }
    }
}

#[test]
fn names_of_volumes_are_names_and_none_stands_twice() {
    for case in cases() {
        let deployment = built(model(&case)).deployment;
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let volumes: Vec<String> =
            pod.volumes.into_iter().flatten().map(|volume| volume.name).collect();
        for name in &volumes {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.len() <= 63 && name.chars().all(is_plain), "{case}: {name}");
        }
        let mounts = pod.containers[0].volume_mounts.iter().flatten();
        let mut mounts: Vec<String> = mounts.map(|mount| mount.name.clone()).collect();
        assert_eq!(mounts, volumes, "{case}");
        mounts.sort();
        mounts.dedup();
        assert_eq!(mounts.len(), volumes.len(), "{case}: {volumes:?}");
    }
}

#[test]
fn another_version_of_a_contract_stands_beside_this_one_and_rolls_the_pods() {
    let before = validated(&model("endpoint"));
    let mut after = before.clone();
    let later = |files: &mut BTreeMap<String, String>| {
        files.insert("v2.json".to_owned(), "{\"version\":2}".to_owned())
    };
    later(&mut after.files.serving);
    later(&mut after.files.policy);
    later(&mut after.injected);
    after.serving_hash = hash(&after.files.serving);
    let maps = config_map::build(&after);
    for map in &maps {
        let versions: Vec<&String> = map.data.as_ref().unwrap().keys().collect();
        assert_eq!(versions, ["v1.json", "v2.json"], "{:?}", map.metadata.name);
    }
    // What cannot be changed is another object, so that it need not be.
    let names = |maps: &[ConfigMap]| -> Vec<String> {
        maps.iter().map(|map| map.metadata.name.clone().unwrap()).collect()
    };
    let (before, after) = (names(&config_map::build(&before)), names(&maps));
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1..], after[1..]);
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

/// Every case, by name.
fn cases() -> Vec<String> {
    let entries = fs::read_dir("tests/golden").unwrap().map(|entry| entry.unwrap().file_name());
    let mut cases: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    cases.sort();
    assert!(cases.len() > 10, "{cases:?}");
    cases
}

fn is_as_expected(case: &str) -> bool {
    let actual = yaml(&built(model(case)));
    let path = folder(case).join("expected.yaml");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    fs::read_to_string(&path).unwrap_or_default() == actual
}

/// A manifest as JSON, which is YAML, with the fields of each map in another order.
fn turned(value: &Value, turn: usize) -> String {
    match value {
        Value::Object(map) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{}:{}", json!(name), turned(value, turn))
            };
            let mut fields: Vec<String> = map.iter().map(field).collect();
            let by = turn / 2 % fields.len().max(1);
            fields.rotate_left(by);
            if turn % 2 == 1 {
                fields.reverse();
            }
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(|item| turned(item, turn)).collect();
            format!("[{}]", items.join(","))
        }
        value => value.to_string(),
    }
}

fn folder(case: &str) -> PathBuf {
    PathBuf::from("tests/golden").join(case)
}

fn model(case: &str) -> EmbeddingModel {
    read(&fs::read_to_string(folder(case).join("model.yaml")).unwrap())
}

fn read(text: &str) -> EmbeddingModel {
    let mut manifests = embark_crds::manifest::read(text).unwrap();
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
        watch_namespaces: Vec::new(),
        lease_name: String::new(),
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
    children.extend(prepared.network_policy.iter().map(|one| ("NetworkPolicy", json!(one))));
    children.push(("Deployment", json!(prepared.deployment)));
    let autoscaler = prepared.autoscaler.iter();
    children.extend(autoscaler.map(|one| ("HorizontalPodAutoscaler", json!(one))));
    children.push(("PodDisruptionBudget", json!(prepared.disruption_budget)));
    children.push(("PodMonitor", json!(prepared.pod_monitor)));
    let mut text = format!("# Generated with BLESS=1; replicas: {}\n", prepared.replicas);
    for (kind, child) in children {
        let document = json!({ "kind": kind, "child": child });
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&document).unwrap());
    }
    text
}
