//! What the documents say is true: every command of theirs is run, in their order, in a network namespace of its own,
//! where the default ports are free; those that need a cluster are run by the tests of the node. Needs root, or a system that lets users make namespaces.

#![cfg(test)]

mod reasons;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use embark_tests::{documents, programs};

/// Documents with commands.
const DOCUMENTS: [&str; 5] = [
    "README.md",
    "docs/requests.md",
    "docs/models.md",
    "docs/operations.md",
    "examples/clients/README.md",
];
/// Commands that are not run here, and what runs them.
const ELSEWHERE: [(&str, &str); 5] = [
    ("cargo demo", "tests/run has a stage for it"),
    ("cargo demo -- --example image-duplicates", "the same stage runs it"),
    ("bash tests/run", "it runs this test"),
    (
        "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
        "tests/run has a stage for it, which installs this version",
    ),
    (
        "python3 -m venv .venv && .venv/bin/pip install grpcio grpcio-tools",
        "tests/run has a stage for it; its environment stands in for .venv",
    ),
];
/// The folder of a Python environment, as documents have it.
const VENV: &str = ".venv";
/// What a server that is left running is waited for by.
const SERVE: &str = "embark-sidecar serve ";

#[test]
fn every_command_of_the_documents_runs() {
    for document in DOCUMENTS {
        let commands = commands(document);
        assert!(!commands.is_empty(), "{document} has no commands: is the fence still ```sh?");
        run(document, &commands);
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let more = [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "charts/embark/README.md",
        "docs/injection.md",
        "docs/operator.md",
        "docs/sources.md",
        "examples/README.md",
    ];
    for document in DOCUMENTS.iter().chain(&more) {
        let path = programs::root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file =
                if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let has =
                |heading| fs::read_to_string(&file).is_ok_and(|text| has_heading(&text, heading));
            let found = file.exists() && (heading.is_empty() || has(heading));
            assert!(found, "{document} links to {target}, which is not there");
        }
    }
}

#[test]
fn what_is_run_elsewhere_is_what_the_documents_say() {
    let read = |file: &str| fs::read_to_string(programs::root().join(file)).unwrap();
    let documents = DOCUMENTS.map(read);
    for (command, _) in ELSEWHERE {
        let said = documents.iter().any(|text| text.lines().any(|line| line == command));
        assert!(said, "no document says {command:?} any more");
    }
    let stages = read("tests/run.d/stages.sh");
    let version = stages.lines().find_map(|line| line.strip_prefix("readonly GRPCURL_VERSION="));
    let install = format!("grpcurl@{}", version.expect("the stage has a version"));
    assert!(ELSEWHERE.iter().any(|(command, _)| command.ends_with(&install)), "{install}");
}

/// Whether a document has a heading that a link names in this way.
fn has_heading(text: &str, name: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let named = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', "")
    };
    headings.into_iter().any(|heading| named(heading) == name)
}

/// The commands of a document that are to be run here.
fn commands(document: &str) -> Vec<String> {
    let here = |command: &documents::Command| {
        command.heading != documents::IN_A_CLUSTER
            && !ELSEWHERE.iter().any(|(line, _)| command.line == *line)
    };
    let commands = documents::commands(document).into_iter().filter(here);
    commands.map(|command| command.line).collect()
}

fn run(document: &str, commands: &[String]) {
    let clone = clone();
    let mut shell = Command::new("unshare");
    programs::forget_package(&mut shell);
    shell
        .args(["--net", "bash", "-c", &script(commands)])
        .current_dir(clone.path())
        .env("PATH", path())
        .stdin(Stdio::null());
    let output = shell.output().expect("unshare runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{document}: {}\n{out}\n{err}", output.status);
}

/// One shell runs all of a document, as a reader would. A server is left running, and waited for.
fn script(commands: &[String]) -> String {
    let mut script =
        "set -euo pipefail\nip link set lo up\ntrap 'left=$(jobs -p); [[ -z $left ]] || kill $left' EXIT\n"
            .to_owned();
    for command in commands {
        script += &format!("echo '$' {command:?}\n");
        if command.starts_with(SERVE) {
            script += &format!(
                "mkfifo log\n{command} 2> log &\nsed '/ready/q' log\ncat log > /dev/null &\n"
            );
        } else if command.starts_with("cargo ") {
            // In the repository itself: elsewhere it would be another workspace, and be built anew.
            script += &format!("(cd {:?}; {command})\n", programs::root());
        } else {
            script += &format!("{command}\n");
        }
    }
    script
}

/// A folder that looks like the repository, in which commands may leave files.
fn clone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(programs::root()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name != "target" && name != "embark-data" && name != VENV {
            symlink(&path, folder.path().join(name)).unwrap();
        }
    }
    // <environment>/bin/python
    let python = programs::from_environment("EMBARK_TEST_PYTHON");
    symlink(python.ancestors().nth(2).unwrap(), folder.path().join(VENV)).unwrap();
    folder
}

/// The search path, with our programs and the tools in front.
fn path() -> std::ffi::OsString {
    let folder = |program: &Path| program.parent().unwrap().to_owned();
    let ours = folder(programs::sidecar());
    let tools = folder(&programs::from_environment("EMBARK_TEST_GRPCURL"));
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = [ours, tools].into_iter().chain(std::env::split_paths(&rest)).collect();
    std::env::join_paths(all).unwrap()
}
