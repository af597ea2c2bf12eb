//! From the start of the process to Ready, and what it is spent on. MiniLM (EMBARK_TEST_MINILM, as tests/run has it) from a
//! local file, with and without what an earlier process left; the tiny model that is compiled in beside it.
//!
//! The files are in the page cache: what is measured is the program, not the disk. Cold means that nothing is in the data
//! folder. The stages are as the log has them; what they do not add up to is the process itself: manifests, ports, the cache.
//! The parts of one start overlap where they can, so the whole may be less than their sum.
//!
//! `cargo measure start` prints `ratio` lines, seconds to Ready against the target, and `time` lines, seconds of each stage,
//! the medians of seven starts.
//!
//! `cargo measure start` on 2 cores of a machine that did little else:
//!
//! ```text
//! ratio start-minilm-cold 0.469 target <= 1       (1.408 s of 3)
//! ratio start-minilm-aim 1.408 target <= 1        MISSED
//! time start-minilm-cold-fetch 0.145, check 0.159, parse 0.053, optimise 0.184, probe 0.216, warm_up 0.575,
//!      self_test 0.026, rest 0.052
//! time start-minilm-again-ready 1.396
//! time start-tiny-cold-ready 0.131
//! ```

#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it starts processes, and pins none")]
mod measure;
#[path = "support/models.rs"]
mod models;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _, stdout},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use measure::{Target, median, ratio};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Starts of each kind.
const STARTS: usize = 7;
/// Seconds that a cold start of MiniLM may take, and those aimed at.
const MOST_SECONDS: f64 = 3.0;
const AIM_SECONDS: f64 = 1.0;
/// The stages, as the log names them.
const STAGES: [&str; 7] = ["fetch", "check", "parse", "optimise", "probe", "warm_up", "self_test"];

/// A start: the seconds to Ready, and of each stage.
struct Start {
    whole: f64,
    stages: [f64; STAGES.len()],
}

/// A process that ends with it.
struct Running(Child);

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let minilm = match models::minilm() {
        Ok(manifest) => manifest,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::FAILURE;
        }
    };
    let check = json!([{
        "input": {"text": "The weather is lovely today."},
        "similarTo": {"text": "It's so sunny outside!"},
        "minCosine": "0.6",
    }]);
    let mut checked = minilm.clone();
    checked["spec"]["selfTest"] = check;
    let cold = starts(&checked, true);
    let whole = report("minilm-cold", &cold);
    ratio("start-minilm-cold", whole / MOST_SECONDS, Target::AtMost(1.0));
    ratio("start-minilm-aim", whole / AIM_SECONDS, Target::AtMost(1.0));
    report("minilm-again", &starts(&checked, false));
    report("tiny-cold", &starts(&models::tiny(&json!({"mode": "MemoryAndDisk"})), true));
    ExitCode::SUCCESS
}

/// Starts a server again and again; each in a new data folder when it is to be cold.
fn starts(manifest: &Value, cold: bool) -> Vec<Start> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.yaml");
    fs::write(&file, manifest.to_string()).expect("the folder is writable");
    // The files of the model are in the page cache from here on.
    start(&file, &folder.path().join("first"));
    let data = |number: usize| match cold {
        true => folder.path().join(format!("data-{number}")),
        false => folder.path().join("first"),
    };
    (0..STARTS).map(|number| start(&file, &data(number))).collect()
}

fn start(manifest: &Path, data: &Path) -> Start {
    let began = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_embark-sidecar"))
        .args(["serve", "--log-format", "json", "--log-level", "info"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--manifest")
        .arg(manifest)
        .arg("--data-dir")
        .arg(data)
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(child.expect("the server starts"));
    let log = BufReader::new(running.0.stderr.take().expect("it is piped"));
    let mut said = String::new();
    for line in log.lines().map_while(Result::ok) {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry["message"] == "ready" {
            let whole = began.elapsed().as_secs_f64();
            let seconds = |stage: &str| entry[stage].as_f64().expect("the log has every stage");
            return Start { whole, stages: STAGES.map(seconds) };
        }
        said = line;
    }
    panic!("the server ended: {said}");
}

/// Prints the medians, and gives that of the whole.
fn report(name: &str, starts: &[Start]) -> f64 {
    let print = |what: &str, seconds: f64| {
        let line = format!("time start-{name}-{what} {seconds:.3}");
        writeln!(stdout().lock(), "{line}").expect("there is a terminal or a file");
    };
    let whole = median(starts.iter().map(|start| start.whole).collect());
    print("ready", whole);
    let mut spent = 0.0;
    for (at, stage) in STAGES.into_iter().enumerate() {
        let seconds = median(starts.iter().map(|start| start.stages[at]).collect());
        spent += seconds;
        print(stage, seconds);
    }
    print("rest", (whole - spent).max(0.0));
    whole
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
