//! Replays the corpora of the fuzz targets (fuzz/corpus), each file as it is and changed a little, always in the same ways.
//! Files named `good-…` must be taken, and files named `bad-…` refused; what the targets themselves check holds for all.
//! `BLESS=1 cargo test --workspace --test corpora` writes those files anew that are no text.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which panic")]

mod corpora {
    pub(super) mod changes;
    pub(super) mod seeds;
}

use std::{
    fs, panic,
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use corpora::{changes::changed, seeds::seeds};
use embark_sidecar::fuzzing::{self, Verdict};
use fastrand::Rng;
use tokio::time::Instant;

/// Where the targets and their corpora are.
const FUZZ: &str = "fuzz";
/// What no input takes, however busy the machine is.
const LONGEST: Duration = Duration::from_secs(60);
/// How often each file is changed; one that takes long is changed less often.
const CHANGES: usize = 200;
/// The time after which a file is changed no more.
const SHARE: Duration = Duration::from_millis(30);

/// Every target: its name, and what it calls.
const TARGETS: [(&str, &str, Target); 8] = [
    ("record_decode", "record", fuzzing::record),
    ("manifest_parse", "manifest", fuzzing::manifest),
    ("request_conversion", "request", fuzzing::request),
    ("grpc_timeout", "grpc_timeout", fuzzing::grpc_timeout),
    ("image_conversion", "image", fuzzing::image),
    ("url_policy", "url", fuzzing::url),
    ("vocabulary", "vocabulary", fuzzing::vocabulary),
    ("onnx_check", "onnx", fuzzing::onnx),
];

type Target = fn(&[u8]) -> Verdict;

/// A file of a corpus.
struct Seed {
    name: String,
    bytes: Vec<u8>,
}

#[test]
fn every_file_of_a_corpus_is_taken_or_refused_as_its_name_says() {
    for (target, _, run) in TARGETS {
        let seeds = corpus(target);
        for Seed { name, bytes } in &seeds {
            let verdict = timed(&format!("{target}/{name}"), || run(bytes));
            let is_as_named = match name.split('-').next() {
                Some("good") => verdict == Verdict::Taken,
                Some("bad") => verdict == Verdict::Refused,
                _ => true,
            };
            assert!(is_as_named, "{target}/{name} is {verdict:?}");
        }
        for kind in ["good-", "bad-"] {
            assert!(seeds.iter().any(|seed| seed.name.starts_with(kind)), "{target} has no {kind}");
        }
    }
}

#[test]
fn no_small_change_of_a_corpus_breaks_what_always_holds() {
    for (target, _, run) in TARGETS {
        let seeds = corpus(target);
        for (number, Seed { name, bytes }) in seeds.iter().enumerate() {
            let (mut random, began) = (Rng::with_seed(number as u64), Instant::now());
            for _ in (0..CHANGES).take_while(|_| began.elapsed() < SHARE) {
                let other = &seeds[random.usize(..seeds.len())].bytes;
                let input = changed(bytes, other, &mut random);
                let whole = panic::catch_unwind(|| timed(name, || run(&input)));
                let shown = &input[..input.len().min(4096)];
                assert!(whole.is_ok(), "{target}/{name}, changed: b\"{}\"", shown.escape_ascii());
            }
        }
    }
}

#[test]
fn every_target_has_its_file_and_its_corpus() {
    let names = |folder: &str| {
        let files = fs::read_dir(Path::new(FUZZ).join(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = files.map(|file| stem(file.unwrap().path())).collect();
        names.sort();
        names
    };
    let mut targets = TARGETS.map(|(target, ..)| target);
    targets.sort_unstable();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    let manifest = fs::read_to_string(Path::new(FUZZ).join("Cargo.toml")).unwrap();
    for (target, function, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        let file = Path::new(FUZZ).join("fuzz_targets").join(target).with_extension("rs");
        let code = fs::read_to_string(file).unwrap();
        assert_eq!(code.matches(&format!("fuzzing::{function}")).count(), 2, "{target}");
    }
}

#[test]
fn seeds_that_are_no_text_are_as_they_are_made() {
    bless();
    for (target, name, bytes) in seeds() {
        let committed = fs::read(seed_file(target, name)).unwrap_or_default();
        assert!(committed == bytes, "{target}/{name} has drifted: run the test with BLESS=1");
    }
}

/// Writes seeds anew where that is asked for; before any is read.
fn bless() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let seeds = if std::env::var_os("BLESS").is_some() { seeds() } else { Vec::new() };
        for (target, name, bytes) in seeds {
            fs::write(seed_file(target, name), bytes).unwrap();
        }
    });
}

fn seed_file(target: &str, name: &str) -> PathBuf {
    Path::new(FUZZ).join("corpus").join(target).join(name)
}

/// The files of a corpus, by name.
fn corpus(target: &str) -> Vec<Seed> {
    bless();
    let folder = Path::new(FUZZ).join("corpus").join(target);
    let seed = |path: PathBuf| Seed {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        bytes: fs::read(&path).unwrap(),
    };
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut seeds: Vec<Seed> = files.map(seed).collect();
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    seeds
}

fn timed(name: &str, run: impl FnOnce() -> Verdict) -> Verdict {
    let began = Instant::now();
    let verdict = run();
    let took = began.elapsed();
    assert!(took < LONGEST, "{name} took {took:?}");
    verdict
}
