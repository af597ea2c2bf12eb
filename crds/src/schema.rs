//! The structure of an EmbeddingModel, checked against the CRD's own schema: the committed YAML that the API server gets.
//!
//! It tells everything that is wrong at once, each at the field path that the API server would name. It follows the API
//! server where that is lenient: a null counts as absent, and `1.0` is a whole number.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value};

use crate::{
    field::{FieldError, MAX_ERRORS, join},
    v1alpha1::{DURATION_PATTERN, QUANTITY_PATTERN},
};

/// The CRD as it is installed.
pub const CRD_YAML: &str = include_str!("../embeddingmodels.embark.dev.yaml");

/// The schema of an EmbeddingModel's spec.
static SPEC: LazyLock<Schema> = LazyLock::new(|| {
    let crd: Value = serde_saphyr::from_str(CRD_YAML).expect("the committed YAML was generated");
    Schema::of(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
});

/// Patterns in words, for messages.
const PATTERNS_IN_WORDS: &[(&str, &str)] = &[
    (QUANTITY_PATTERN, "must be a quantity such as 64Mi or 2Gi"),
    (DURATION_PATTERN, "must be a duration with its unit, such as 24h, 1h30m or 50ms"),
    ("^[0-9a-fA-F]{64}$", "must be 64 hex digits"),
    ("^-?(0(\\.[0-9]+)?|1(\\.0+)?)$", "must be a number from -1 to 1"),
    ("^(100|[0-9]{1,2})%$", "must be a percentage from 0% to 100%"),
];

/// Patterns whose texts YAML takes for nothing else, so that they need no quotes.
const NEED_NO_QUOTES: &[&str] = &[QUANTITY_PATTERN, DURATION_PATTERN];

/// One node of a structural schema.
#[derive(Debug)]
struct Schema {
    kind: Kind,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    additional: Option<Box<Schema>>,
    items: Option<Box<Schema>>,
    keeps_unknown: bool,
    words: Vec<Value>,
    number: Range,
    length: Range,
    count: Range,
    pattern: Option<Regex>,
    map_keys: Vec<String>,
}

/// What a value's type must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    Any,
}

/// Bounds of a number, a length or a count, both ends included.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    least: Option<f64>,
    most: Option<f64>,
}

/// Collects errors up to a bound.
struct Walk {
    errors: Vec<FieldError>,
}

/// Everything that is wrong with the structure of a spec; at most 64 errors.
pub fn check_spec(spec: &Value) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new() };
    walk.value(&SPEC, spec, "spec");
    walk.errors
}

/// The nearest of some names, as a hint for a reader; or all of them when none is near.
pub(crate) fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let lower = name.to_lowercase();
    let nearest = known
        .iter()
        .map(|candidate| {
            (strsim::normalized_damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= 0.5);
    match nearest {
        Some((_, candidate)) => format!("did you mean {candidate}?"),
        None => format!("known are {}", known.join(", ")),
    }
}

// === impl Schema ===

impl Schema {
    fn of(node: &Value) -> Schema {
        let children = node["properties"].as_object();
        let child = |name: &str| node.get(name).filter(|v| v.is_object());
        Schema {
            kind: Kind::of(node),
            properties: children
                .into_iter()
                .flatten()
                .map(|(name, child)| (name.clone(), Schema::of(child)))
                .collect(),
            required: texts(&node["required"]),
            additional: child("additionalProperties").map(|child| Box::new(Schema::of(child))),
            items: child("items").map(|child| Box::new(Schema::of(child))),
            keeps_unknown: node["x-kubernetes-preserve-unknown-fields"] == true,
            words: node["enum"].as_array().cloned().unwrap_or_default(),
            number: Range::of(node, "minimum", "maximum").within_format(&node["format"]),
            length: Range::of(node, "minLength", "maxLength"),
            count: match Kind::of(node) {
                Kind::Array => Range::of(node, "minItems", "maxItems"),
                _ => Range::of(node, "minProperties", "maxProperties"),
            },
            pattern: node["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok()),
            map_keys: match node["x-kubernetes-list-type"].as_str() {
                Some("map") => texts(&node["x-kubernetes-list-map-keys"]),
                _ => Vec::new(),
            },
        }
    }

    /// What a text must be; `None`: it has no pattern, or one without words.
    fn pattern_in_words(&self) -> Option<&'static str> {
        let pattern = self.pattern.as_ref()?.as_str();
        PATTERNS_IN_WORDS.iter().find(|(known, _)| *known == pattern).map(|(_, words)| *words)
    }

    /// What a value of another type should have been: all that its text must be, so that mending the one does not uncover
    /// the other.
    fn kind_in_words(&self) -> String {
        let needs_no_quotes =
            self.pattern.as_ref().is_some_and(|p| NEED_NO_QUOTES.contains(&p.as_str()));
        match (self.kind, self.pattern_in_words()) {
            (Kind::String | Kind::IntOrString, Some(words)) if needs_no_quotes => words.to_owned(),
            (Kind::String, Some(words)) => format!("{words} (put it in quotes)"),
            _ => self.kind.in_words().to_owned(),
        }
    }
}

// === impl Kind ===

impl Kind {
    fn of(node: &Value) -> Kind {
        if node["x-kubernetes-int-or-string"] == true {
            return Kind::IntOrString;
        }
        match node["type"].as_str() {
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        }
    }

    fn accepts(self, value: &Value) -> bool {
        let whole = || value.as_f64().is_some_and(|number| number.fract() == 0.0);
        match self {
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::String => value.is_string(),
            Kind::Integer => whole(),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::IntOrString => value.is_string() || whole(),
            Kind::Any => true,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Kind::Object => "must be a block of fields",
            Kind::Array => "must be a list",
            Kind::String => "must be text (put it in quotes)",
            Kind::Integer => "must be a whole number",
            Kind::Number => "must be a number",
            Kind::Boolean => "must be true or false",
            Kind::IntOrString => "must be a whole number or text",
            Kind::Any => "may be anything",
        }
    }
}

// === impl Range ===

impl Range {
    fn of(node: &Value, least: &str, most: &str) -> Range {
        Range { least: node[least].as_f64(), most: node[most].as_f64() }
    }

    /// A format bounds a number as well.
    fn within_format(self, format: &Value) -> Range {
        if format != "int32" {
            return self;
        }
        let (low, high) = (f64::from(i32::MIN), f64::from(i32::MAX));
        Range {
            least: Some(self.least.unwrap_or(low).max(low)),
            most: Some(self.most.unwrap_or(high).min(high)),
        }
    }

    fn holds(self, number: f64) -> bool {
        self.least.is_none_or(|least| number >= least)
            && self.most.is_none_or(|most| number <= most)
    }

    fn is_exact(self) -> bool {
        self.least.is_some() && self.least == self.most
    }

    fn in_words(self) -> String {
        match (self.least, self.most) {
            (Some(least), Some(_)) if self.is_exact() => format!("exactly {least}"),
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => "any number".to_owned(),
        }
    }
}

// === impl Walk ===

impl Walk {
    fn push(&mut self, path: &str, value: Option<&Value>, message: impl Into<String>) {
        if !self.is_full() {
            self.errors.push(FieldError::new(path, value, message));
        }
    }

    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    fn value(&mut self, schema: &Schema, value: &Value, path: &str) {
        if self.is_full() {
            return;
        }
        if !schema.kind.accepts(value) {
            return self.push(path, Some(value), schema.kind_in_words());
        }
        if !schema.words.is_empty() && !schema.words.contains(value) {
            let words = texts_of(&schema.words).join(", ");
            return self.push(path, Some(value), format!("must be one of {words}"));
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.array(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => {
                if !number.as_f64().is_some_and(|number| schema.number.holds(number)) {
                    let message = format!("must be {}", schema.number.in_words());
                    self.push(path, Some(value), message);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn object(&mut self, schema: &Schema, fields: &Map<String, Value>, path: &str) {
        if !schema.count.holds(fields.len() as f64) {
            let message = format!("must have {} entries", schema.count.in_words());
            self.push(path, None, message);
        }
        for name in &schema.required {
            // As the API server has it: a null is pruned, and then the field is missing.
            if fields.get(name).is_none_or(Value::is_null) {
                self.push(&join(path, name), None, "is required");
            }
        }
        for (name, value) in fields {
            if self.is_full() {
                return;
            }
            match schema.properties.get(name).or(schema.additional.as_deref()) {
                Some(_) if value.is_null() => {}
                Some(child) => self.value(child, value, &join(path, name)),
                None if schema.keeps_unknown || schema.kind == Kind::Any => {}
                None => {
                    let known = schema.properties.keys().map(String::as_str);
                    let message = format!("is not a known field; {}", suggest(name, known));
                    self.push(&join(path, name), None, message);
                }
            }
        }
    }

    fn array(&mut self, schema: &Schema, items: &[Value], path: &str) {
        if !schema.count.holds(items.len() as f64) {
            let message =
                format!("holds {} entries, it must hold {}", items.len(), schema.count.in_words());
            return self.push(path, None, message);
        }
        if let Some(child) = &schema.items {
            for (index, item) in items.iter().enumerate() {
                self.value(child, item, &format!("{path}[{index}]"));
            }
        }
        if schema.map_keys.is_empty() {
            return;
        }
        let key = |item: &Value| -> Vec<Value> {
            schema.map_keys.iter().map(|key| item[key.as_str()].clone()).collect()
        };
        for (index, item) in items.iter().enumerate() {
            if items[..index].iter().any(|earlier| key(earlier) == key(item)) {
                let keys = schema.map_keys.join(" and ");
                let shown = Value::Array(key(item));
                let shown = if schema.map_keys.len() == 1 { &shown[0] } else { &shown };
                let message = format!("repeats the {keys} of an earlier entry");
                self.push(&format!("{path}[{index}]"), Some(shown), message);
            }
        }
    }

    fn text(&mut self, schema: &Schema, text: &str, path: &str) {
        let value = Value::String(text.to_owned());
        let characters = text.chars().count();
        if !schema.length.holds(characters as f64) {
            let allowed = match schema.pattern_in_words() {
                // A text of one length alone: its pattern says it, and what it is made of.
                Some(words) if schema.length.is_exact() => words.to_owned(),
                _ => format!("must have {}", schema.length.in_words()),
            };
            let plural = if characters == 1 { "" } else { "s" };
            let message = format!("has {characters} character{plural}, it {allowed}");
            return self.push(path, Some(&value), message);
        }
        let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.is_match(text))
        else {
            return;
        };
        match schema.pattern_in_words() {
            Some(words) => self.push(path, Some(&value), words),
            None => self.push(path, Some(&value), format!("must match {pattern}")),
        }
    }
}

// === free functions ===

fn texts(list: &Value) -> Vec<String> {
    list.as_array().map(|list| texts_of(list)).unwrap_or_default()
}

fn texts_of(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
