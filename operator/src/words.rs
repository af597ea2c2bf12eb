//! Others' words, made fit for a condition or a line.

/// The most characters of what is passed on.
pub(crate) const MOST: usize = 1024;

/// One line without control characters, cut to a readable length.
pub(crate) fn cleaned(words: &str) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let line: Vec<&str> = words.split(blank).filter(|word| !word.is_empty()).collect();
    cut(line.join(" "))
}

/// As many characters as may be passed on; where there are more, it says so.
pub(crate) fn cut(words: String) -> String {
    if words.chars().nth(MOST).is_none() {
        return words;
    }
    words.chars().take(MOST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_line_without_control_characters() {
        let words = format!("spec.model:\n\u{1b}[31m is\u{0} bad {}", "x".repeat(2 * MOST));
        let cleaned = cleaned(&words);
        assert!(cleaned.starts_with("spec.model: [31m is bad x") && cleaned.ends_with('…'));
        assert_eq!(cleaned.chars().count(), MOST);
    }
}
