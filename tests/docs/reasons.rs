//! docs/operator.md has every reason that the operator gives, and none that it does not.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use embark_tests::programs;

/// Reasons that no condition has: they are the metric's and the log's.
const OF_NO_CONDITION: [&str; 2] = ["StatusFailed", "WatchesEnded"];

#[test]
fn document_of_the_operator_has_each_reason_of_its_code_and_no_other() {
    let given = given();
    assert!(given.contains("Serving") && given.contains("NameTaken"), "{given:?}");
    let document = fs::read_to_string(programs::root().join("docs/operator.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let mut told: BTreeSet<String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            assert!(cells.len() >= 4, "{row}");
            assert!(["True", "False", "Unknown"].contains(&cells[1]), "{row}");
            cells[2].trim_matches('`').to_owned()
        })
        .collect();
    for reason in OF_NO_CONDITION {
        assert!(document.contains(&format!("`{reason}`")), "{reason}");
        told.insert(reason.to_owned());
    }
    assert_eq!(told, given, "docs/operator.md on the left, the code on the right");
}

/// Every reason in the code: the third argument of each verdict, and what errors' `reason` gives.
fn given() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    let source = programs::root().join("operator/src");
    for file in rust_files(&source) {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for call in code.split("Verdict::new(").skip(1) {
            reasons.extend(arguments(call).get(2).and_then(|argument| literal(argument)));
        }
        for method in code.split("fn reason(").skip(1) {
            let body = method.split("\n    }\n").next().unwrap();
            reasons.extend(body.split("=>").skip(1).filter_map(|arm| literal(arm.trim())));
        }
    }
    reasons
}

/// The arguments of a call whose bracket was opened.
fn arguments(call: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut in_text) = (vec![String::new()], 0_u32, false);
    for c in call.chars() {
        in_text ^= c == '"';
        match c {
            ')' if depth == 0 && !in_text => break,
            ',' if depth == 0 && !in_text => {
                arguments.push(String::new());
                continue;
            }
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text => depth -= 1,
            _ => {}
        }
        arguments.last_mut().unwrap().push(c);
    }
    arguments
}

/// The text that an expression begins with, if it is one word.
fn literal(expression: &str) -> Option<String> {
    let text = expression.trim().strip_prefix('"')?.split('"').next()?;
    text.chars().all(char::is_alphanumeric).then(|| text.to_owned())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}
