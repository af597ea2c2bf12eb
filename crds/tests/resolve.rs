//! The table of good and bad specs, judged by `manifest::read` and `resolve`.

use std::collections::BTreeSet;

use embark_crds::{
    manifest::{self, Manifest},
    resolve::{FieldError, Target, check_change, resolve},
};
use serde_json::{Value, json};

use self::table::{Expected, Row, Table, table};

#[path = "specs/table.rs"]
mod table;

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

/// What names their spaces must not hang on how Rust spells a variant.
#[test]
fn the_spaces_of_other_inputs_are_what_they_always_were() {
    let plain = json!({"width": 2, "height": 3});
    let other = json!({"width": 2, "height": 3, "resize": "FitCrop", "layout": "NCHW", "channels": "BGR", "dtype": "Float32"});
    let image = |image: &Value| json!({ "image": image });
    let tensor = |dtype: &str| json!({"tensor": {"shape": [13], "dtype": dtype}});
    for (input, space) in [
        (image(&plain), "21355bfa0599d1de5a41dc99cb98a787418f8aa715f1211b32d24fd2c6c42714"),
        (image(&other), "c2ee44049576740d9541abe702aa33a6dec6f009f4d8e9f09074dce4c2db6074"),
        (tensor("Float32"), "8da4f541614258535c35480e21dbcc2010a988391f9ef6175a764cb65928d43c"),
        (tensor("Float64"), "ef05cb6e8733fffc1f44915d30cd7b0d19c1c6cd26dded4b353fe900e5004d98"),
        (tensor("Int32"), "274e05bb55dc814af183f466a7160e7def339992cdfab8d48d5e3e754972e879"),
        (tensor("Int64"), "ae0adde4b373a77254ed787e8445db49234f5913ca9f6ef09be02df17aa79130"),
        (tensor("Uint8"), "689382b5d8aab19427783e1b22e6d2c2a48f0e38e2d6c14a2e80dadedc933f66"),
        (tensor("Int8"), "9bdf5c4701ba97fc1f2c345089e69294585aaa1f90c7ed5cf9084806d9d476cd"),
        (tensor("Bool"), "2df494404225009e49dd03d4f544ad6333013e5af0620624d675838d174b2c6b"),
    ] {
        let mut spec = table().base;
        spec["input"] = input.clone();
        let spec = serde_json::from_value(spec).unwrap();
        let contract = resolve("other", &spec, Target::Local).unwrap();
        let found = embark_crds::digest::SpaceId::of(&contract.serving).to_string();
        assert_eq!(found, space, "{input}");
    }
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
    let manifest = table::model(base, patch, model);
    match manifest::read(&manifest.to_string()) {
        Ok(mut manifests) => {
            assert_eq!(manifests.len(), 1);
            Ok(manifests.remove(0))
        }
        Err(errors) => Err(errors.into_iter().map(|error| error.error).collect()),
    }
}

/// Each error is expected, and each expected one is there.
fn as_expected(errors: &[FieldError], expected: &[Expected]) -> bool {
    let fits = |error: &FieldError, expected: &Expected| {
        error.field == expected.field && error.message.contains(&expected.message)
    };
    errors.iter().all(|error| expected.iter().any(|expected| fits(error, expected)))
        && expected.iter().all(|expected| errors.iter().any(|error| fits(error, expected)))
}
