//! The walls between the sidecar's modules: what only one of them may name. And what it must not hold at all.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where images are decoded.
const DECODE: &str = "model/image/decode.rs";

#[test]
fn sled_is_named_in_one_file() {
    assert_eq!(naming(|word| word == "sled"), ["cache/store.rs"]);
}

#[test]
fn tract_is_named_in_its_module_alone() {
    let files = naming(|word| word.starts_with("tract_"));
    let inside = |file: &String| file == "model/tract.rs" || file.starts_with("model/tract/");
    assert!(!files.is_empty() && files.iter().all(inside), "{files:?}");
}

#[test]
fn the_decoders_of_images_are_named_in_one_file_and_its_tests() {
    let files = naming(|word| word == "codecs");
    let inside = |file: &String| file == DECODE || file.starts_with("model/image/tests");
    assert!(files.iter().any(|file| file == DECODE) && files.iter().all(inside), "{files:?}");
}

#[test]
fn generated_messages_are_named_under_grpc_alone() {
    let files = naming(|word| word == "pb");
    // It is declared in one file, and tract has a module of that name too.
    let inside = |file: &String| {
        file == "lib.rs" || file.starts_with("grpc/") || file.starts_with("model/tract/")
    };
    assert!(files.len() > 2 && files.iter().all(inside), "{files:?}");
}

#[test]
fn the_sidecar_holds_no_kubernetes_client() {
    let tree = tree(&["-p", "embark-sidecar", "-e", "normal"]);
    assert!(tree.iter().any(|name| name == "tonic"), "{tree:?}");
    let kube: Vec<&String> = tree.iter().filter(|name| name.starts_with("kube")).collect();
    assert!(kube.is_empty(), "{kube:?}");
}

/// Files under src/ whose code has a word for which `wanted` holds; comments and texts are not code.
fn naming(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new("src");
    let mut files = Vec::new();
    collect(root, &mut files);
    let names = |file: &PathBuf| fs::read_to_string(file).unwrap().lines().any(|l| has(l, &wanted));
    let mut found: Vec<String> = files
        .iter()
        .filter(|file| names(file))
        .map(|file| file.strip_prefix(root).unwrap().display().to_string())
        .collect();
    found.sort();
    found
}

fn has(line: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let outside_of_texts = code.split('"').step_by(2);
    let identifier = |c: char| c.is_alphanumeric() || c == '_';
    outside_of_texts.flat_map(|part| part.split(|c| !identifier(c))).any(wanted)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The names in a dependency tree.
fn tree(arguments: &[&str]) -> Vec<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["tree", "--offline", "--locked", "--prefix", "none"]).args(arguments);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&variable);
        }
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
