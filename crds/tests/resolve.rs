//! The table of good and bad specs, judged by `manifest::read` and `resolve`.

use std::collections::BTreeSet;

use embark_crds::{
    manifest::{self, Manifest},
    resolve::{FieldError, Target, check_change, resolve},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    base: Value,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    spec: Value,
    #[serde(default = "minilm")]
    model: String,
    old: Option<Value>,
    #[serde(default = "everywhere")]
    targets: Vec<String>,
    #[serde(default)]
    errors: Vec<Expected>,
    judge: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    field: String,
    message: String,
}

fn minilm() -> String {
    "minilm".to_owned()
}

fn everywhere() -> Vec<String> {
    vec!["local".to_owned(), "cluster".to_owned()]
}

fn table() -> Table {
    serde_saphyr::from_str(include_str!("specs.yaml")).expect("the table is YAML")
}

/// What is cached is found by this. A change of it must have been meant.
#[test]
fn the_space_of_the_quick_start_is_what_it_always_was() {
    let text = include_str!("../../examples/quickstart.yaml");
    let manifest = &embark_crds::manifest::read(text).unwrap()[0];
    let contract = resolve(&manifest.metadata.name, &manifest.spec, Target::Local).unwrap();
    assert_eq!(
        embark_crds::digest::SpaceId::of(&contract.serving).to_string(),
        "d8e6499d4ef7158f38cfa3d894b2e7d1794a6a747efa752a09b3fa51c9e977fd"
    );
}

#[test]
fn every_row_of_the_table_gets_its_verdict() {
    let Table { base, rows } = table();
    let mut wrong = Vec::new();
    for row in &rows {
        for target in &row.targets {
            let target = match target.as_str() {
                "local" => Target::Local,
                "cluster" => Target::Cluster,
                other => panic!("{}: unknown target {other}", row.name),
            };
            let errors = judge(&base, row, target);
            if !as_expected(&errors, &row.errors) {
                let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
                wrong.push(format!("{} ({target:?}): {told:#?}", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_rows_enough_and_no_name_twice() {
    let rows = table().rows;
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len());
    assert!(rows.len() >= 90, "{} rows", rows.len());
    assert!(rows.iter().all(|row| row.judge.as_deref().is_none_or(|judge| judge == "resolve")));
    assert!(rows.iter().filter(|row| row.errors.is_empty()).count() >= 20);
}

#[test]
fn every_rule_is_broken_by_a_row() {
    let told: Vec<String> = table()
        .rows
        .iter()
        .flat_map(|row| row.errors.iter().map(|error| error.message.clone()))
        .collect();
    for rule in embark_crds::rules::rules() {
        let covered = told.iter().any(|message| rule.message.contains(message.as_str()));
        assert!(covered, "no row breaks: {} at {}", rule.message, rule.at);
    }
}

/// Everything that is wrong with a row: of its structure, else of its meaning, else of the change to it.
fn judge(base: &Value, row: &Row, target: Target) -> Vec<FieldError> {
    let new = match read(base, &row.spec, &row.model) {
        Ok(manifest) => manifest,
        Err(errors) => return errors,
    };
    match resolve(&new.metadata.name, &new.spec, target) {
        Err(errors) => errors,
        Ok(_) => row.old.as_ref().map_or_else(Vec::new, |old| {
            let old = read(base, old, &row.model).expect("the old spec is good");
            check_change(&old.spec, &new.spec)
        }),
    }
}

fn read(base: &Value, patch: &Value, model: &str) -> Result<Manifest, Vec<FieldError>> {
    let mut spec = base.clone();
    merge(&mut spec, patch);
    let manifest = json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": model },
        "spec": spec,
    });
    match manifest::read(&manifest.to_string()) {
        Ok(mut manifests) => {
            assert_eq!(manifests.len(), 1);
            Ok(manifests.remove(0))
        }
        Err(errors) => Err(errors.into_iter().map(|error| error.error).collect()),
    }
}

/// RFC 7386, and `"{n}"` stands for a text of n characters.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = expanded(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("made above").remove(name);
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

fn expanded(value: &Value) -> Value {
    let count = value
        .as_str()
        .and_then(|text| text.strip_prefix('{')?.strip_suffix('}')?.parse::<usize>().ok());
    count.map_or_else(|| value.clone(), |count| "x".repeat(count).into())
}

/// Each error is expected, and each expected one is there.
fn as_expected(errors: &[FieldError], expected: &[Expected]) -> bool {
    let fits = |error: &FieldError, expected: &Expected| {
        error.field == expected.field && error.message.contains(&expected.message)
    };
    errors.iter().all(|error| expected.iter().any(|expected| fits(error, expected)))
        && expected.iter().all(|expected| errors.iter().any(|error| fits(error, expected)))
}
