//! The binary as a user calls it.

use std::{
    io::Read as _,
    process::{Command, Output, Stdio},
};

fn operator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_embark-operator")).args(arguments).output().expect("it starts")
}

#[test]
fn crds_print_writes_the_committed_file() {
    let output = operator(&["crds", "print"]);
    assert!(output.status.success());
    let committed = include_str!("../../crds/embeddingmodels.embark.dev.yaml");
    assert!(output.stdout == committed.as_bytes(), "the committed CRD is not what the types make");
}

#[test]
fn a_reader_who_has_enough_is_no_failure() {
    let mut printing = Command::new(env!("CARGO_BIN_EXE_embark-operator"))
        .args(["crds", "print"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = [0];
    // Far less than a pipe holds of it: the rest is written after the reader has gone.
    let mut reader = printing.stdout.take().unwrap();
    reader.read_exact(&mut first).unwrap();
    drop(reader);
    let output = printing.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{}", output.status);
}

#[test]
fn version_is_told() {
    let output = operator(&["--version"]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.trim(), concat!("embark-operator ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let output = operator(&["crds", "delete"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("delete"));
}
