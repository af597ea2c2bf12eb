//! Documents that have what kubectl prints. What changes from run to run is put into one form by rules.

use std::fs;

use crate::programs;

/// A moment, an id, an age and a version, as they stand in the document.
const TIME: &str = "2026-01-01T00:00:00Z";
const UID: &str = "00000000-0000-0000-0000-000000000000";

/// Fails when a document is not this text; with `BLESS=1` writes it anew.
pub fn is_committed(file: &str, text: &str) {
    let path = programs::root().join(file);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).expect("the document can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(
        committed == text,
        "{file} has drifted: run the test with BLESS=1. The first line that differs: {differs:?}"
    );
}

/// Puts what changes from run to run into one form: the namespace, times, ids, versions, ages, bytes of a cache, the
/// order of events.
pub fn normalised(printed: &str, namespace: &str) -> String {
    let mut in_table = printed.starts_with("NAME ");
    let mut lines: Vec<String> = Vec::new();
    for line in printed.lines() {
        in_table |= line.starts_with("Events:");
        lines.push(if in_table { row(line, namespace) } else { words(line, namespace) });
    }
    if let Some(events) = lines.iter().position(|line| line.starts_with("Events:")) {
        // Behind the head of the table and the line below it.
        let first = (events + 3).min(lines.len());
        lines[first..].sort();
    }
    lines.join("\n") + "\n"
}

/// A row of a table, with its words in one form, each as long as it was: a column stands behind it.
fn row(line: &str, namespace: &str) -> String {
    let word = |word: &str| {
        let same = if is_age(word) { "5s".to_owned() } else { word.replace(namespace, "default") };
        format!("{same:<width$}", width = word.len())
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

fn words(line: &str, namespace: &str) -> String {
    for (name, number) in [("Resource Version:", "    1"), ("Bytes:", "        1024")] {
        if let Some((margin, _)) = line.split_once(name)
            && margin.trim().is_empty()
        {
            return format!("{margin}{name}{number}");
        }
    }
    let line = line.replace(namespace, "default");
    let word = |word: &str| match word {
        word if is_time(word) => TIME.to_owned(),
        word if is_uid(word) => UID.to_owned(),
        word => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

fn is_time(word: &str) -> bool {
    word.len() == TIME.len() && shape(word) == shape(TIME)
}

fn is_uid(word: &str) -> bool {
    let hex = |c: char| if c.is_ascii_hexdigit() { '0' } else { c };
    word.chars().map(hex).collect::<String>() == UID
}

/// `7s`, `3m12s`
fn is_age(word: &str) -> bool {
    let digits = word.strip_suffix('s').unwrap_or_default();
    !digits.is_empty()
        && digits.chars().all(|c| c.is_ascii_digit() || c == 'm')
        && !digits.starts_with('m')
}

fn shape(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_from_run_to_run_is_put_into_one_form() {
        let printed = "Name:  a-x1\nResource Version:  77\n  Bytes:        1751\nUID:  3f0c2e4a-1b2c-4d5e-8f90-abcdefabcdef\n\
                       Since:  2031-11-22T21:00:00Z  \nkeep 24h 7st 10s\nEvents:\n head\n ----\n  b  12s  x\n  a  3s  y\n";
        let expected = "Name:  default\nResource Version:    1\n  Bytes:        1024\nUID:  00000000-0000-0000-0000-000000000000\n\
                        Since:  2026-01-01T00:00:00Z\nkeep 24h 7st 10s\nEvents:\n head\n ----\n  a  5s  y\n  b  5s   x\n";
        assert_eq!(normalised(printed, "a-x1"), expected);
    }
}
