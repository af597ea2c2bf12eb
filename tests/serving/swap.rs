//! Another version of a model takes over while it serves, or does not and says why.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use embark_sidecar::pb::client::{EmbedResponse, ModelState, Source};
use embark_tests::{
    Manifest, Sidecar, onnx,
    sidecar::{Embeddings, Options, request, sources, until},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
};

use crate::mounted::{contract, mount, options};

/// A version whose vectors have positive values alone, and one whose vectors have negative ones alone.
const POSITIVE: &str = "Relu";
const NEGATIVE: &str = "Neg";

fn version(folder: &Path, operator: &str) -> Manifest {
    Manifest::of_tokens("m", folder, |ids| onnx::lookup(ids, operator))
}

/// Whether every vector is one of the version whose space the reply names.
fn is_of_its_space(reply: &EmbedResponse, positive: &str) -> bool {
    let is_positive = reply.space_id == positive;
    let values = reply.results.iter().flat_map(|result| &result.vector);
    reply.results.iter().all(|result| result.vector.len() == 4)
        && values.into_iter().all(|value| (*value > 0.0) == is_positive && *value != 0.0)
}

/// Callers who ask again and again, and check each reply; they give how many there were and which spaces they were of.
struct Callers {
    tasks: Vec<JoinHandle<(usize, BTreeSet<String>)>>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    async fn start(sidecar: &Sidecar, positive: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut tasks = Vec::new();
        for caller in 0..4 {
            let (client, stop) = (sidecar.embeddings().await, Arc::clone(&stop));
            tasks.push(tokio::spawn(ask(client, caller, positive.to_owned(), stop)));
        }
        Callers { tasks, stop }
    }

    async fn end(self) -> (usize, BTreeSet<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let (mut calls, mut spaces) = (0, BTreeSet::new());
        for task in self.tasks {
            let (answered, seen) = task.await.expect("every reply was right");
            calls += answered;
            spaces.extend(seen);
        }
        (calls, spaces)
    }
}

/// Half of the texts come again, so that what is remembered is checked too.
async fn ask(
    mut client: Embeddings,
    caller: usize,
    positive: String,
    stop: Arc<AtomicBool>,
) -> (usize, BTreeSet<String>) {
    let (mut calls, mut spaces) = (0, BTreeSet::new());
    while !stop.load(Ordering::SeqCst) {
        let texts = [format!("text {}", calls % 20), format!("{caller} and {calls}")];
        let reply = client.embed(request(&texts.each_ref().map(String::as_str))).await;
        let reply = reply.unwrap_or_else(|status| panic!("call {calls} failed: {status}"));
        let reply = reply.into_inner();
        assert!(is_of_its_space(&reply, &positive), "{reply:?}");
        spaces.insert(reply.space_id);
        calls += 1;
    }
    (calls, spaces)
}

/// Waits until the model's vectors are of another space than this.
async fn until_another(sidecar: &Sidecar, space: &str) -> String {
    until("another version answers", async || sidecar.space().await != space).await;
    sidecar.space().await
}

async fn next(sidecar: &Sidecar) -> Value {
    sidecar.model_status("m").await["next"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_take_over_under_load_without_a_failed_call_or_a_vector_of_another_space() {
    let folder = tempfile::tempdir().unwrap();
    let versions = [POSITIVE, NEGATIVE].map(|operator| version(folder.path(), operator));
    let options = Options::new(folder.path(), &versions[0]);
    let sidecar = Sidecar::start(&options).await;
    let first = sidecar.space().await;
    let callers = Callers::start(&sidecar, &first).await;
    let (mut space, mut seen) = (first.clone(), BTreeSet::from([first]));
    for swap in 1..=6 {
        let _ = options.with(&versions[swap % 2]);
        space = until_another(&sidecar, &space).await;
        seen.insert(space.clone());
        assert_eq!(sidecar.get("/ready").await.0, 200);
    }
    let (calls, spaces) = callers.end().await;
    assert_eq!((seen.len(), spaces), (2, seen));
    assert!(calls > 100, "{calls} calls");
    // What serves is what is told of, and what does not is gone.
    let status = sidecar.model_status("m").await;
    assert_eq!((&status["spaceId"], &status["next"]), (&json!(space), &Value::Null));
    let metrics = sidecar.get("/metrics").await.1;
    let info: Vec<&str> = metrics.lines().filter(|l| l.starts_with("embark_model_info{")).collect();
    assert!(info.len() == 1 && info[0].contains(&space), "{info:?}");
    assert!(metrics.contains("embark_model_ready{model=\"m\"} 1"), "{metrics}");
    until("the caches of other spaces are gone", async || {
        let folders = fs::read_dir(options.data.join("cache/m")).unwrap();
        let names: Vec<_> = folders.map(|entry| entry.unwrap().file_name()).collect();
        names == [space.as_str()]
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_on_its_way_is_told_of_while_the_one_before_answers() {
    let folder = tempfile::tempdir().unwrap();
    let versions = [POSITIVE, NEGATIVE].map(|operator| version(folder.path(), operator));
    let gate = Arc::new(Notify::new());
    let url = gated(&versions[1], Arc::clone(&gate)).await;
    let options = Options::new(folder.path(), &versions[0]);
    let sidecar = Sidecar::start(&options).await;
    let space = sidecar.space().await;
    let _ = options.with(&versions[1].clone().with("/spec/model/source/uri", url));
    until("the next version is fetched", async || next(&sidecar).await["state"] == "fetching")
        .await;
    let told = next(&sidecar).await;
    assert_ne!(told["spaceId"], space);
    let model = sidecar.model("m").await.unwrap();
    assert_eq!((model.state(), model.space_id.as_str()), (ModelState::Ready, space.as_str()));
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    gate.notify_one();
    let now = until_another(&sidecar, &space).await;
    assert_eq!(told["spaceId"], now);
    let line = sidecar.wait_for_line("took over from the version before").await;
    assert_eq!((&line["model"], &line["space_id"]), (&json!("m"), &json!(now)));
    sidecar.wait_for_line("the version before is gone").await;
    assert_eq!(next(&sidecar).await, Value::Null);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_leaves_the_one_before_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let [good, other] = [POSITIVE, NEGATIVE].map(|operator| version(folder.path(), operator));
    let options = Options::new(folder.path(), &good);
    let sidecar = Sidecar::start(&options).await;
    let space = sidecar.space().await;
    let test = json!([{
        "input": {"text": "a"}, "vector": [1.0, 1.0, 1.0, 1.0], "minCosine": "0.5",
    }]);
    let no_model = folder.path().join("text.onnx");
    fs::write(&no_model, "no model").unwrap();
    let sha256 = embark_tests::manifest::sha256(&no_model);
    let source = json!({"uri": format!("file://{}", no_model.display()), "sha256": sha256});
    let callers = Callers::start(&sidecar, &space).await;
    for (bad, sentence) in [
        (
            other.clone().with("/spec/model/source/sha256", "0".repeat(64)),
            "spec.model.source.sha256: is 0000",
        ),
        (other.clone().with("/spec/model/source", source), "spec.model.source: "),
        (other.clone().with("/spec/model/output/dimensions", 5), "spec.model.output.dimensions: "),
        (other.clone().with("/spec/selfTest", test), "spec.selfTest[0]: the cosine is -"),
    ] {
        let _ = options.with(&bad);
        until("it is told", async || {
            let next = next(&sidecar).await;
            let told = next["message"].as_str().is_some_and(|message| message.contains(sentence));
            next["state"] == "failed" && told
        })
        .await;
        assert_eq!(sidecar.space().await, space);
        assert_eq!(sidecar.get("/ready").await.0, 200);
    }
    let line = sidecar.wait_for_line_with("spec.selfTest[0]: the cosine is").await;
    let said = line["message"].as_str().unwrap();
    assert!(said.ends_with("; the version before goes on"), "{said}");
    // It is tried again when its file changes, and what was asked for first is what serves.
    let _ = options.with(&good);
    until("nothing is to come", async || next(&sidecar).await == Value::Null).await;
    let _ = options.with(&other);
    until_another(&sidecar, &space).await;
    let (calls, spaces) = callers.end().await;
    assert!(calls > 100 && spaces.len() == 2, "{calls} {spaces:?}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_the_same_space_goes_on_with_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = version(folder.path(), POSITIVE);
    let options = Options::new(folder.path(), &manifest);
    let sidecar = Sidecar::start(&options).await;
    let space = sidecar.space().await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::Computed]);
    let _ = options.with(&manifest.with("/spec/batching/maxItems", 8));
    sidecar.wait_for_line("the version before is gone").await;
    assert_eq!(sidecar.space().await, space);
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
    assert_eq!(sidecar.model_status("m").await["cache"]["disk"]["state"], "healthy");
    sidecar.stop().await;
    // It was written, and not deleted.
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitDisk]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_contract_is_followed_too() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path();
    // As a cluster's, but for where the files are.
    let of = |operator| {
        let mut contract = contract(&Manifest::tiny("m").with("/spec/input/text/pooling", "Mean"));
        let local = version(files, operator);
        let local = embark_crds::manifest::read(&local.to_string()).unwrap().remove(0);
        let target = embark_crds::resolve::Target::Local;
        contract.serving = embark_crds::resolve::resolve("m", &local.spec, target).unwrap().serving;
        contract
    };
    mount(files, "m", &of(POSITIVE));
    let sidecar = Sidecar::start(&options(files)).await;
    let space = sidecar.space().await;
    let callers = Callers::start(&sidecar, &space).await;
    mount(files, "m", &of(NEGATIVE));
    let negative = until_another(&sidecar, &space).await;
    let (_, spaces) = callers.end().await;
    assert!(spaces.contains(&space), "{spaces:?}");
    let contract_file = files.join("models/m/contract/v1.json");
    fs::write(&contract_file, "{}").unwrap();
    until("it is told", async || {
        let message = next(&sidecar).await["message"].clone();
        message.as_str().is_some_and(|message| message.contains("v1.json: is no contract"))
    })
    .await;
    assert_eq!(sidecar.space().await, negative);
    sidecar.stop().await;
}

/// A contract that nobody can serve comes and goes while the first version is being loaded, which goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_comes_and_goes_does_not_end_the_first_load() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Notify::new()));
    let local = version(folder.path(), POSITIVE);
    let url = gated(&local, Arc::clone(&gate)).await;
    let slow = local.with("/spec/model/source/uri", url);
    let unserved = slow.clone().with("/spec/endpoint/tokenSecretRef", json!({"name": "tokens"}));
    mount(folder.path(), "m", &contract(&slow));
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    until("it is fetched", async || sidecar.model_status("m").await["state"] == "fetching").await;
    mount(folder.path(), "m", &contract(&unserved));
    until("it is refused", async || !next(&sidecar).await.is_null()).await;
    mount(folder.path(), "m", &contract(&slow));
    until("it is asked for again", async || next(&sidecar).await.is_null()).await;
    gate.notify_one();
    sidecar.wait_until_ready().await;
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_failed_is_loaded_when_its_file_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let good = version(folder.path(), POSITIVE);
    let mut options = Options::new(
        folder.path(),
        &good.clone().with("/spec/model/source/sha256", "0".repeat(64)),
    );
    options.manifests.push(Manifest::tiny("tiny").write(folder.path()));
    let sidecar = Sidecar::start_listening(&options).await;
    until("it has failed", async || sidecar.model_status("m").await["state"] == "failed").await;
    good.write(folder.path());
    until("it is ready", async || sidecar.model_status("m").await["state"] == "ready").await;
    until("the process is ready", async || sidecar.get("/ready").await.0 == 200).await;
    sidecar.stop().await;
}

/// The file of a version at a URL whose answer waits until it is let go.
async fn gated(version: &Manifest, gate: Arc<Notify>) -> String {
    let manifest: Value = serde_json::from_str(&version.to_string()).unwrap();
    let uri = manifest["spec"]["model"]["source"]["uri"].as_str().unwrap();
    let body = fs::read(uri.strip_prefix("file://").unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/model.onnx", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /model.onnx "));
        gate.notified().await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
    });
    url
}
