//! One thing that is wrong with a manifest: which field, which value, and what is allowed.

use std::fmt;

use serde_json::Value;

/// The most errors that are told of one manifest.
pub(crate) const MAX_ERRORS: usize = 64;
/// The most characters of a value that an error shows.
const MAX_VALUE_CHARACTERS: usize = 64;

/// One thing that is wrong, at a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's path as the API server writes it, such as `spec.input.text.prompts[1].name`.
    pub field: String,
    /// The value as JSON, cut to a readable length; empty when it is absent or an object.
    pub value: String,
    /// What is allowed. For a rule of the schema this is the rule's message, word for word.
    pub message: String,
}

// === impl FieldError ===

impl FieldError {
    /// An error of a value; `None`: the field is absent.
    pub fn new(
        field: impl Into<String>,
        value: Option<&Value>,
        message: impl Into<String>,
    ) -> Self {
        let value = value.map_or_else(String::new, abbreviate);
        FieldError { field: field.into(), value, message: message.into() }
    }

    /// An error that is not about a value.
    pub fn of_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError::new(field, None, message)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.field.as_str(), self.value.as_str()) {
            ("", "") => write!(f, "{}", self.message),
            ("", value) => write!(f, "{value} {}", self.message),
            (field, "") => write!(f, "{field}: {}", self.message),
            (field, value) => write!(f, "{field}: {value} {}", self.message),
        }
    }
}

impl std::error::Error for FieldError {}

// === free functions ===

/// A field below another.
pub(crate) fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.to_owned() } else { format!("{parent}.{child}") }
}

/// A value as a message shows it. Objects are not shown, and of a list no more than is needed is written.
fn abbreviate(value: &Value) -> String {
    let text = match value {
        Value::Object(_) => return String::new(),
        Value::Array(items) => {
            let shown = items.iter().take(MAX_VALUE_CHARACTERS);
            let shown = shown.map(abbreviate).collect::<Vec<_>>().join(", ");
            format!("[{shown}]")
        }
        Value::String(text) => {
            let text: String = text.chars().take(MAX_VALUE_CHARACTERS + 1).collect();
            Value::String(text).to_string()
        }
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX_VALUE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_the_field_the_value_and_what_is_allowed() {
        let error = FieldError::new("spec.cache.ttl", Some(&json!("0s")), "must be above 0s");
        assert_eq!(error.to_string(), r#"spec.cache.ttl: "0s" must be above 0s"#);
    }

    #[test]
    fn an_absent_value_is_not_shown() {
        let error = FieldError::of_field("spec.model", "is required");
        assert_eq!(error.to_string(), "spec.model: is required");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let value = json!("ä".repeat(10_000));
        let error = FieldError::new("f", Some(&value), "m");
        assert_eq!(error.value.chars().count(), MAX_VALUE_CHARACTERS + 1);
        assert!(error.value.ends_with('…'));
    }
}
