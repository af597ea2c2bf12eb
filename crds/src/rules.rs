//! What the fields of an EmbeddingModel mean together: one table, whose rows each hold where a rule stands, its CEL, its
//! sentence, and the same rule in Rust.
//!
//! The CRD's `x-kubernetes-validations` are made of the table, and [`resolve`](crate::resolve::resolve) judges by it; so
//! the API server and a local check answer with the same sentence at the same field. A rule holds where a value that it
//! looks at is absent or malformed: that is the schema's to say.

use std::sync::LazyLock;

use serde_json::Value;

use crate::{
    field::{FieldError, join},
    resolve::{duration, quantity},
    v1alpha1::DURATION_PATTERN,
};

mod artifact;
mod input;
mod model;

/// Whether a rule holds; `None`: it cannot be judged, because a value is absent or malformed.
pub(crate) type Verdict = Option<bool>;

/// One rule.
pub struct Rule {
    /// The node of the schema that it stands at, as a path: `spec.selfTest[].input`; empty: the whole object.
    pub at: String,
    /// The field below it that is to blame, such as `output.truncateDimensions`; empty: the node itself.
    pub field: &'static str,
    /// The rule in CEL; `self` is the node.
    pub cel: String,
    /// What a user is told, behind the field and its value.
    pub message: String,
    judge: Judge,
}

/// The rule in Rust.
enum Judge {
    /// Of a value.
    State(Box<dyn Fn(&Value) -> Verdict + Send + Sync>),
    /// Of a new value (first) and the one that it replaces.
    Change(fn(&Value, &Value) -> Verdict),
}

/// Every rule.
pub fn rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        model::rules().into_iter().chain(input::rules()).chain(artifact::rules()).collect()
    });
    &RULES
}

/// The rules that an object breaks.
pub fn broken(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for rule in rules() {
        let Judge::State(judge) = &rule.judge else { continue };
        for (path, node) in nodes(object, &rule.at) {
            if judge(node) == Some(false) {
                errors.push(rule.error(&path, node));
            }
        }
    }
    errors
}

/// The rules that the change from `old` to `new` breaks. Rules of change stand at nodes that are no list's items.
pub fn broken_by_change(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for rule in rules() {
        let Judge::Change(judge) = rule.judge else { continue };
        for ((path, new), (_, old)) in nodes(new, &rule.at).into_iter().zip(nodes(old, &rule.at)) {
            if judge(new, old) == Some(false) {
                errors.push(rule.error(&path, new));
            }
        }
    }
    errors
}

// === impl Rule ===

impl Rule {
    fn error(&self, path: &str, node: &Value) -> FieldError {
        if self.field.is_empty() {
            return FieldError::new(path, Some(node), &self.message);
        }
        FieldError::new(join(path, self.field), get(node, self.field), &self.message)
    }
}

// === free functions ===

/// A rule of a value.
pub(crate) fn state(
    (at, field): (&str, &'static str),
    cel: impl Into<String>,
    message: impl Into<String>,
    judge: impl Fn(&Value) -> Verdict + Send + Sync + 'static,
) -> Rule {
    let judge = Judge::State(Box::new(judge));
    Rule { at: at.to_owned(), field, cel: cel.into(), message: message.into(), judge }
}

/// A rule of a change.
pub(crate) fn change(
    (at, field): (&str, &'static str),
    cel: &str,
    message: &str,
    judge: fn(&Value, &Value) -> Verdict,
) -> Rule {
    let judge = Judge::Change(judge);
    Rule { at: at.to_owned(), field, cel: cel.to_owned(), message: message.to_owned(), judge }
}

/// A rule that keeps a quantity within bounds, both included. It does not hold for what only looks like a quantity, such
/// as `1e1.5`: the schema's pattern lets that pass.
pub(crate) fn size(at: &str, least: &'static str, most: &'static str) -> Rule {
    let cel = format!(
        "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{least}')) >= 0 && quantity(string(self)).compareTo(quantity('{most}')) <= 0"
    );
    state((at, ""), cel, format!("must be from {least} to {most}"), move |node| {
        let text = node.as_str().map_or_else(|| node.to_string(), str::to_owned);
        let Some(size) = quantity::nanos(&text) else { return Some(false) };
        Some(quantity::nanos(least)? <= size && size <= quantity::nanos(most)?)
    })
}

/// A rule that keeps a duration above nothing. A text that is no duration is the schema's to refuse.
pub(crate) fn above_zero(at: &str) -> Rule {
    let cel = format!("!self.matches(r'{DURATION_PATTERN}') || duration(self) > duration('0s')");
    state((at, ""), cel, "must be above 0s", |node| {
        Some(!duration::parse(node.as_str()?)?.is_zero())
    })
}

/// A rule that bounds a duration, the bound included.
pub(crate) fn at_most(at: &str, most: &'static str) -> Rule {
    let cel =
        format!("!self.matches(r'{DURATION_PATTERN}') || duration(self) <= duration('{most}')");
    state((at, ""), cel, format!("must be at most {most}"), move |node| {
        Some(duration::parse(node.as_str()?)? <= duration::parse(most)?)
    })
}

/// A node below another by a path of names; `None`: it is absent.
pub(crate) fn get<'a>(node: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(node, |node, name| node.get(name)).filter(|node| !node.is_null())
}

/// Whether a field is set.
pub(crate) fn has(node: &Value, path: &str) -> bool {
    get(node, path).is_some()
}

/// A whole number.
pub(crate) fn int(node: &Value, path: &str) -> Option<i64> {
    get(node, path)?.as_i64()
}

/// A text.
pub(crate) fn text<'a>(node: &'a Value, path: &str) -> Option<&'a str> {
    get(node, path)?.as_str()
}

/// A list; an absent one is empty.
pub(crate) fn list<'a>(node: &'a Value, path: &str) -> &'a [Value] {
    get(node, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether exactly one of some fields is set.
pub(crate) fn exactly_one(node: &Value, fields: &[&str]) -> Verdict {
    Some(fields.iter().filter(|field| has(node, field)).count() == 1)
}

/// Every node that a path of the schema leads to, with its field path.
fn nodes<'a>(object: &'a Value, at: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![(String::new(), object)];
    for segment in at.split('.').filter(|segment| !segment.is_empty()) {
        let name = segment.trim_end_matches("[]");
        let below = found.into_iter().filter_map(|(path, node)| {
            node.get(name).filter(|node| !node.is_null()).map(|node| (join(&path, name), node))
        });
        found = if segment.ends_with("[]") {
            below.flat_map(|(path, node)| items(&path, node)).collect()
        } else {
            below.collect()
        };
    }
    found
}

fn items<'a>(path: &str, list: &'a Value) -> Vec<(String, &'a Value)> {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect()
}
