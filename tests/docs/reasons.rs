//! docs/operator.md has every reason that the operator gives, with what it is given of, and none that it does not.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use embark_tests::programs;

/// Reasons that no condition has: they are the metric's and the log's.
const OF_NO_CONDITION: [&str; 2] = ["StatusFailed", "WatchesEnded"];

/// What a condition is, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// The condition; empty where the code takes it from elsewhere.
    type_: String,
    status: &'static str,
    reason: String,
}

#[test]
fn document_of_the_operator_has_each_reason_of_its_code_and_no_other() {
    let document = fs::read_to_string(programs::root().join("docs/operator.md")).unwrap();
    let (told, given) = (told(&document), given());
    let pairs = |rows: &BTreeSet<Row>| {
        let pairs = rows.iter().map(|row| format!("{} {}", row.status, row.reason));
        pairs.collect::<BTreeSet<String>>()
    };
    let mut in_code = pairs(&given);
    assert!(in_code.contains("True Serving") && in_code.contains("False NameTaken"), "{given:?}");
    for reason in OF_NO_CONDITION {
        assert!(document.contains(&format!("`{reason}`")), "{reason}");
        assert!(in_code.remove(&format!("False {reason}")), "{reason} is given no more");
    }
    assert_eq!(pairs(&told), in_code, "docs/operator.md on the left, the code on the right");
    for row in given.iter().filter(|row| !row.type_.is_empty()) {
        assert!(told.contains(row), "docs/operator.md has no {row:?}");
    }
}

/// The rows of the document's table.
fn told(document: &str) -> BTreeSet<Row> {
    let mut told = BTreeSet::new();
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() >= 4, "{row}");
        let status = ["True", "False", "Unknown"].into_iter().find(|status| *status == cells[1]);
        let status = status.unwrap_or_else(|| panic!("{row}"));
        let reason = cells[2].trim_matches('`').to_owned();
        told.extend(cells[0].split(", ").map(|type_| {
            let type_ = type_.trim_matches('`').to_owned();
            Row { type_, status, reason: reason.clone() }
        }));
    }
    told
}

/// Every reason in the code: of each verdict that names one, and what errors' `reason` gives, which is why something is not so.
fn given() -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    let source = programs::root().join("operator/src");
    for file in rust_files(&source) {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (at, name) in code.match_indices("Verdict::new(") {
            rows.extend(verdict(&arguments(&code[at + name.len()..]), &code[..at]));
        }
        for method in code.split("fn reason(").skip(1) {
            let body = method.split("\n    }\n").next().unwrap();
            let reasons = body.split("=>").skip(1).filter_map(|arm| literal(arm.trim()));
            let row = |reason| Row { type_: String::new(), status: "False", reason };
            rows.extend(reasons.map(row));
        }
    }
    rows
}

/// What a verdict of these arguments is, if it names its reason. `TYPE` is what the code before says last.
fn verdict(arguments: &[String], before: &str) -> Option<Row> {
    let reason = literal(arguments.get(2)?)?;
    let type_ = match arguments[0].trim() {
        "TYPE" => before.rsplit("const TYPE: &str = ").next().and_then(literal),
        type_ => literal(type_),
    };
    let status = match arguments[1].trim() {
        "Some(true)" => "True",
        "Some(false)" => "False",
        "None" => "Unknown",
        other => panic!("{reason} is given with {other}: is it True, False or Unknown?"),
    };
    Some(Row { type_: type_.unwrap_or_default(), status, reason })
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
