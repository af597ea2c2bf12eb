//! Why a model is not served, in words for the person who wrote its manifest.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The longest reason of another library that is quoted, in characters.
const QUOTE_CHARS: usize = 240;

/// A sentence that opens with the field it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {sentence}")]
pub struct Refusal {
    /// The field of the manifest.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub sentence: String,
}

// === impl Refusal ===

impl Refusal {
    /// A refusal of `field`.
    pub fn new(field: impl Into<String>, sentence: impl Into<String>) -> Self {
        Refusal { field: field.into(), sentence: sentence.into() }
    }
}

// === free functions ===

/// Another library's words made fit for a sentence: one line, no control characters, cut to a readable length.
pub(crate) fn quote(words: impl fmt::Display) -> String {
    let words = words.to_string();
    let line: Vec<&str> = words.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = line.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(QUOTE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Runs another library's code; a panic in it becomes its words. Nothing that `work` changed may be used after a panic.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_words(&*panic))
}

/// The words of a panic.
fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    quote(words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_one_short_line() {
        let words = format!("a\n\tb\u{7}{}", "x".repeat(1000));
        let quoted = quote(words);
        assert!(quoted.starts_with("a b x") && quoted.ends_with('…'));
        assert_eq!(quoted.chars().count(), QUOTE_CHARS + 1);
    }

    #[test]
    fn a_panic_has_words() {
        assert_eq!(contained(|| panic!("at {}", 7)), Err::<(), _>("at 7".to_owned()));
        assert_eq!(contained(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        assert_eq!(contained(|| 7), Ok(7));
    }
}
