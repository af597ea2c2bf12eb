//! Manifests read without Kubernetes: YAML or JSON of one or more EmbeddingModels, bounded in size and depth.
//!
//! It refuses what is wrong in structure. What fields mean together is judged by [`resolve`](crate::resolve::resolve).

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options};

use crate::{
    field::{FieldError, MAX_ERRORS, join},
    rules, schema,
    v1alpha1::{API_VERSION, EmbeddingModelSpec, KIND, Metadata},
};

/// The most bytes of one file.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The most documents of one file.
const MAX_DOCUMENTS: usize = 256;
/// How deep a document may nest.
const MAX_DEPTH: usize = 64;
/// The most values of one file, those that aliases stand for included.
const MAX_NODES: usize = 250_000;
/// The fields of an object's metadata, as the API server knows them.
const METADATA_FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// The fields of an EmbeddingModel.
const ROOT_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// An EmbeddingModel as a manifest gives it; its status is not read.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its name and labels.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: EmbeddingModelSpec,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The document, counted from 1; `None`: the file has one alone, or cannot be told into documents.
    pub document: Option<usize>,
    /// The line, counted from 1, where the parser knows it.
    pub line: Option<u64>,
    /// What is wrong, and where.
    pub error: FieldError,
}

/// Every EmbeddingModel of a file, in its order. Empty documents are passed over.
///
/// # Errors
/// Everything that is wrong with the structure of any document.
pub fn read(text: &str) -> Result<Vec<Manifest>, Vec<ManifestError>> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, at most {MAX_BYTES} are read", text.len());
        return Err(vec![ManifestError::of_file(None, message)]);
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
            let line = error.location().map(|location| location.line()).filter(|&line| line > 0);
            vec![ManifestError::of_file(
                line,
                format!("is not YAML that can be read: {}", first_line(&error)),
            )]
        })?;
    let many = documents.len() > 1;
    let mut manifests = Vec::new();
    let mut errors = Vec::new();
    for (index, mut document) in documents.into_iter().enumerate() {
        if document.is_null() {
            continue;
        }
        whole_numbers(&mut document);
        match read_document(&document) {
            Ok(manifest) => manifests.push(manifest),
            Err(found) => errors.extend(found.into_iter().map(|error| ManifestError {
                document: many.then_some(index + 1),
                line: None,
                error,
            })),
        }
    }
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() { Ok(manifests) } else { Err(errors) }
}

// === impl ManifestError ===

impl ManifestError {
    fn of_file(line: Option<u64>, message: String) -> Self {
        ManifestError { document: None, line, error: FieldError::of_field("", message) }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(document) = self.document {
            write!(f, "document {document}: ")?;
        }
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for ManifestError {}

// === free functions ===

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_aliases: 256,
            max_anchors: 64,
            max_total_scalar_bytes: 2 * MAX_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    }
}

fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// `1.0` becomes `1` and `-0.0` becomes `0`, as on the way through the API server, so that both make the same contract.
fn whole_numbers(value: &mut Value) {
    /// Up to here a double holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let real = number.as_f64().unwrap_or(0.5);
            if real.fract() == 0.0 && real.abs() <= EXACT {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
                let whole = real as i64;
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn read_document(document: &Value) -> Result<Manifest, Vec<FieldError>> {
    let Some(fields) = document.as_object() else {
        return Err(vec![FieldError::new("", Some(document), "must be an EmbeddingModel")]);
    };
    let mut errors = Vec::new();
    for (name, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match fields.get(name) {
            Some(value) if value == expected => {}
            Some(value) => {
                errors.push(FieldError::new(name, Some(value), format!("must be {expected}")));
            }
            None => {
                let message = format!("is required, and must be {expected}");
                errors.push(FieldError::of_field(name, message));
            }
        }
    }
    // Of a document of another kind nothing else is worth saying.
    if !errors.is_empty() {
        return Err(errors);
    }
    unknown_fields(fields, "", ROOT_FIELDS, &mut errors);
    let metadata = read_metadata(fields.get("metadata"), &mut errors);
    let spec = match fields.get("spec") {
        Some(spec) if !spec.is_null() => {
            errors.extend(schema::check_spec(spec));
            spec
        }
        _ => {
            errors.push(FieldError::of_field("spec", "is required"));
            &Value::Null
        }
    };
    if !errors.is_empty() {
        // What the fields mean together is told as well, as far as it can be seen already.
        errors.extend(rules::broken(document));
        return Err(errors);
    }
    let spec = serde_json::from_value(without_nulls(spec.clone()))
        .map_err(|error| vec![FieldError::of_field("spec", format!("cannot be read: {error}"))])?;
    Ok(Manifest { metadata, spec })
}

/// A null counts as absent, as the API server has it.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn unknown_fields(
    fields: &Map<String, Value>,
    path: &str,
    known: &[&str],
    errors: &mut Vec<FieldError>,
) {
    for name in fields.keys().filter(|name| !known.contains(&name.as_str())).take(MAX_ERRORS) {
        let hint = schema::suggest(name, known.iter().copied());
        let message = format!("is not a known field; {hint}");
        errors.push(FieldError::of_field(join(path, name), message));
    }
}

fn read_metadata(metadata: Option<&Value>, errors: &mut Vec<FieldError>) -> Metadata {
    let empty = Map::new();
    let fields = match metadata {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(fields)) => fields,
        Some(other) => {
            errors.push(FieldError::new("metadata", Some(other), "must be a block of fields"));
            return Metadata::default();
        }
    };
    unknown_fields(fields, "metadata", METADATA_FIELDS, errors);
    let mut text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => {
            let message = "must be text (put it in quotes)";
            errors.push(FieldError::new(join("metadata", name), Some(other), message));
            Some(String::new())
        }
    };
    let (name, namespace) = (text("name"), text("namespace"));
    if name.is_none() {
        errors.push(FieldError::of_field("metadata.name", "is required"));
    }
    Metadata {
        name: name.unwrap_or_default(),
        namespace,
        labels: read_texts(fields, "labels", errors),
        annotations: read_texts(fields, "annotations", errors),
    }
}

fn read_texts(
    metadata: &Map<String, Value>,
    name: &str,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<String, String> {
    let path = join("metadata", name);
    let fields = match metadata.get(name) {
        None | Some(Value::Null) => return Default::default(),
        Some(Value::Object(fields)) => fields,
        Some(other) => {
            errors.push(FieldError::new(path, Some(other), "must be a block of fields"));
            return Default::default();
        }
    };
    let mut texts = BTreeMap::new();
    for (key, value) in fields {
        match value {
            Value::String(text) => drop(texts.insert(key.clone(), text.clone())),
            other if errors.len() < MAX_ERRORS => {
                let message = "must be text (put it in quotes)";
                errors.push(FieldError::new(join(&path, key), Some(other), message));
            }
            _ => {}
        }
    }
    texts
}

#[cfg(test)]
mod tests;
