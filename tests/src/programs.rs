//! The programs under test and the tools that tests/run installs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tokio::io::AsyncWriteExt as _;

/// What came of a program that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit code; -1: a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

/// The repository.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        // Where cargo runs, not where it compiled: checkouts may share what they build.
        let run = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let tests = run.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        tests.parent().expect("the tests are a folder of it").to_owned()
    })
}

/// The sidecar's binary, built once for each run of a test binary.
pub fn sidecar() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("embark-sidecar"))
}

/// The operator's binary, built once for each run of a test binary.
pub fn operator() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("embark-operator"))
}

/// The binary that starts clusters, built once for each run of a test binary.
pub fn test_cluster() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("embark-test-cluster"))
}

/// Runs the sidecar's binary to its end, with these arguments and this standard input.
pub async fn embark(
    arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
    input: &[u8],
) -> Finished {
    let mut command = tokio::process::Command::new(sidecar());
    command.args(arguments).env_remove("EMBARK_ADDRESS");
    run(command, input).await
}

/// Runs a program to its end, with this standard input.
pub async fn run(mut command: tokio::process::Command, input: &[u8]) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let written = async move {
        // A program that reads no input may have ended before.
        let _ = stdin.write_all(input).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), written);
    let output = output.expect("the program ends");
    Finished {
        code: output.status.code().unwrap_or(-1),
        output: String::from_utf8(output.stdout).expect("it prints UTF-8"),
        errors: String::from_utf8(output.stderr).expect("it prints UTF-8"),
    }
}

/// What `tests/run` says of a tool or a model by an environment variable.
///
/// # Panics
/// The variable is not set: the test cannot run without, and does not skip itself.
pub fn from_environment(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable) else {
        panic!(
            "{variable} is not set: run the tests by `bash tests/run`, which installs what they need"
        );
    };
    PathBuf::from(path)
}

/// Keeps from a command what cargo told this test of its package: a cargo below it would run build scripts again, since
/// some of them depend on these variables.
pub fn forget_package(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&variable);
        }
    }
}

fn build(binary: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Without -p: with it, other features of shared dependencies would build them all once more.
    build.args(["build", "--quiet", "--bin", binary]).current_dir(root());
    forget_package(&mut build);
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "{binary} does not build");
    // target/<profile>/deps/<this test>
    let test = std::env::current_exe().expect("the test has a path");
    test.ancestors().nth(2).expect("a target folder").join(binary)
}
