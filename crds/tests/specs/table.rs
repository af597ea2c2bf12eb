//! The table of good and bad specs, for whoever judges them. Not every judge reads every field.

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) base: Value,
    pub(crate) rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) spec: Value,
    #[serde(default = "minilm")]
    pub(crate) model: String,
    pub(crate) old: Option<Value>,
    #[serde(default = "everywhere")]
    pub(crate) targets: Vec<String>,
    #[serde(default)]
    pub(crate) errors: Vec<Expected>,
    pub(crate) judge: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) field: String,
    pub(crate) message: String,
}

fn minilm() -> String {
    "minilm".to_owned()
}

fn everywhere() -> Vec<String> {
    vec!["local".to_owned(), "cluster".to_owned()]
}

pub(crate) fn table() -> Table {
    serde_saphyr::from_str(include_str!("../specs.yaml")).expect("the table is YAML")
}

/// The EmbeddingModel of a row: the base with its patch.
pub(crate) fn model(base: &Value, patch: &Value, name: &str) -> Value {
    let mut spec = base.clone();
    merge(&mut spec, patch);
    json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": name },
        "spec": spec,
    })
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
