//! Models that memory is not there for are refused by a sentence, before they are read.

use std::path::Path;

use embark_tests::{
    Manifest, Sidecar, onnx,
    sidecar::{Options, until},
};
use serde_json::Value;

/// A model whose cache takes 4 MiB in memory and nothing on disk, and whose file has about 480 KB.
fn small(folder: &Path, operator: &str) -> Manifest {
    Manifest::of_tokens("m", folder, |ids| onnx::lookup(ids, operator))
        .with("/spec/cache/mode", "Memory")
        .with("/spec/cache/memory/sizeLimit", "4Mi")
}

/// The process itself counts 32 MiB.
fn limited(mut options: Options, limit: &str) -> Options {
    options.arguments.extend(["--memory-limit".into(), limit.into()]);
    options
}

async fn refused(options: Options) -> String {
    let ended = Sidecar::fail(&options).await;
    assert_eq!(ended.code(), 1, "{}", ended.log);
    ended.sentences().concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_is_refused_with_what_it_needs_and_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Manifest::tiny("tiny").with("/spec/cache/mode", "Disabled");
    let said = refused(limited(Options::new(folder.path(), &tiny), "36Mi")).await;
    assert_eq!(
        said,
        "error: tiny: spec.model.source: its file has more than 2097152 bytes, and memory for no more: it takes 2 times its file, beside 0 MiB for its cache (spec.cache.memory.sizeLimit); the process may use 36 MiB, and 32 MiB are spoken for"
    );
    let said =
        refused(limited(Options::new(folder.path(), &Manifest::tiny("tiny")), "128Mi")).await;
    assert_eq!(
        said,
        "error: tiny: spec.cache.memory.sizeLimit: it needs about 160 MiB of memory, for its cache; the process may use 128 MiB, and 32 MiB are spoken for"
    );
    let said = refused(limited(Options::new(folder.path(), &tiny), "32Mi")).await;
    let tokenizer = "error: tiny: spec.input.text.tokenizer: its file has more than 0 bytes, and memory for no more";
    assert!(said.starts_with(tokenizer), "{said}");
    let ended = Sidecar::fail(&limited(Options::new(folder.path(), &tiny), "64")).await;
    assert!(ended.log.contains("is not a size of 32Mi or more"), "{}", ended.log);
    let sidecar = Sidecar::start(&limited(Options::new(folder.path(), &tiny), "48Mi")).await;
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_count_while_one_takes_over_from_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let options = limited(Options::new(folder.path(), &small(folder.path(), "Relu")), "39Mi");
    let sidecar = Sidecar::start(&options).await;
    let space = sidecar.space().await;
    let _ = options.with(&small(folder.path(), "Neg"));
    let next = async || sidecar.model_status("m").await["next"].clone();
    until("the next version is refused", async || next().await["state"] == "failed").await;
    let message = next().await["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("spec.cache.memory.sizeLimit: it needs about 4 MiB"), "{message}");
    let both = "5 MiB of it are of the version that serves until this one takes over";
    assert!(message.ends_with(both), "{message}");
    assert_eq!((sidecar.space().await, sidecar.embed(&["a"]).await.len()), (space.clone(), 1));
    // Without a cache there is room for two.
    let lean = small(folder.path(), "Neg").with("/spec/cache/mode", "Disabled");
    let _ = options.with(&lean);
    until("another version answers", async || sidecar.space().await != space).await;
    assert_eq!(next().await, Value::Null);
    sidecar.stop().await;
}
