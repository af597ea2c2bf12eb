//! Models that are not there yet, or never will be, beside one that is.

use std::{path::Path, sync::Arc};

use embark_sidecar::pb::client::{ModelState, Source};
use embark_tests::{
    Manifest, Sidecar,
    manifest::PANICS,
    programs, refusal,
    sidecar::{Options, request_of, sources, until},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    sync::Notify,
};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// A file that is no tokenizer, and has another digest.
const WRONG_TOKENIZER: &str = "builtin://tiny-static-minilm/model.onnx";

#[tokio::test(flavor = "multi_thread")]
async fn while_one_model_loads_the_other_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (url, gate) = slow_source().await;
    let slow = Manifest::tiny("slow").with("/spec/model/source/uri", url);
    let mut options = Options::new(folder.path(), &slow);
    options.manifests.push(Manifest::tiny("quick").write(folder.path()));
    let sidecar = Sidecar::start_listening(&options).await;
    until("the quick model is ready", async || state(&sidecar, "quick").await == ModelState::Ready)
        .await;
    until("the slow model is fetched", async || {
        state(&sidecar, "slow").await == ModelState::Fetching
    })
    .await;
    let served = sidecar.call(request_of("quick", &["a"])).await.unwrap();
    assert_eq!(sources(&served.results), [Source::Computed]);
    let refused = sidecar.call(request_of("slow", &["a"])).await.unwrap_err();
    refusal::metadata(&refused, Code::Unavailable, "MODEL_NOT_READY");
    assert!(refused.message().contains("\"slow\""), "{refused}");
    let not = ServingStatus::NotServing;
    assert_eq!(healths(&sidecar, ["", "slow", "quick"]).await, [not, not, ServingStatus::Serving]);
    assert_eq!(sidecar.get("/live").await.0, 200);
    let (code, why) = sidecar.get("/ready").await;
    assert!(code == 503 && why.contains("\"slow\""), "{code} {why}");

    let request = HealthCheckRequest { service: "slow".to_owned() };
    let mut watch =
        HealthClient::new(sidecar.channel().await).watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), not);
    gate.notify_one();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    sidecar.wait_until_ready().await;
    assert!(sidecar.call(request_of("slow", &["a"])).await.is_ok());
    until("the process is ready", async || sidecar.get("/ready").await.0 == 200).await;
    until("health says so", async || healths(&sidecar, [""]).await == [ServingStatus::Serving])
        .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_says_why_and_the_other_serves() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Manifest::tiny("broken").with("/spec/model/output/dimensions", 64);
    let mut options = Options::new(folder.path(), &broken);
    options.manifests.push(Manifest::tiny("good").write(folder.path()));
    let sidecar = Sidecar::start_listening(&options).await;
    let line = sidecar.wait_for_line_with("failed to load").await;
    assert_eq!((&line["level"], &line["model"]), (&"ERROR".into(), &"broken".into()));
    until("the good model is ready", async || state(&sidecar, "good").await == ModelState::Ready)
        .await;
    until("the other has failed", async || state(&sidecar, "broken").await == ModelState::Failed)
        .await;
    let described = sidecar.model("broken").await.unwrap();
    assert!(described.message.contains("spec.model.output.dimensions"), "{}", described.message);
    assert_eq!(sidecar.model_status("broken").await["message"], described.message);
    let refused = sidecar.call(request_of("broken", &["a"])).await.unwrap_err();
    refusal::metadata(&refused, Code::Unavailable, "MODEL_NOT_READY");
    assert!(refused.message().contains(&described.message), "{refused}");
    let served = sidecar.call(request_of("good", &["a"])).await.unwrap();
    assert_eq!(sources(&served.results), [Source::Computed]);
    let not = ServingStatus::NotServing;
    assert_eq!(healths(&sidecar, ["", "broken"]).await, [not, not]);
    until("health of the good one", async || {
        healths(&sidecar, ["good"]).await == [ServingStatus::Serving]
    })
    .await;
    assert_eq!(sidecar.get("/ready").await.0, 503);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_source_is_away_is_served_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    // A port that nobody listens on: it was free a moment ago, and is held without listening.
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/model.onnx", held.local_addr().unwrap());
    let manifest = Manifest::tiny("tiny").with("/spec/model/source/uri", url.as_str());
    let sidecar = Sidecar::start_listening(&Options::new(folder.path(), &manifest)).await;
    sidecar.wait_for_line_with("not loaded yet, tried again in").await;
    // Not while it is tried again.
    until("it says where the source is", async || {
        let (code, why) = sidecar.get("/ready").await;
        code == 503 && why.contains(&url)
    })
    .await;
    let state = state(&sidecar, "tiny").await;
    assert!(matches!(state, ModelState::Pending | ModelState::Fetching), "{state:?}");
    let refused = sidecar.call(request_of("tiny", &["a"])).await.unwrap_err();
    refusal::metadata(&refused, Code::Unavailable, "MODEL_NOT_READY");
    serve_model(held.listen(1).unwrap(), None);
    sidecar.wait_until_ready().await;
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_the_matter_with_other_models_one_answers_all_along() {
    let folder = tempfile::tempdir().unwrap();
    let models = bad_models(folder.path());
    let good = Manifest::tiny("good").with("/spec/cache/mode", "Disabled");
    let mut options = Options::new(folder.path(), &good);
    let sidecar = {
        let files = models.iter().map(|(_, manifest, _)| manifest.write(folder.path()));
        options.manifests.extend(files);
        Sidecar::start_listening(&options).await
    };
    until("the good model is ready", async || state(&sidecar, "good").await == ModelState::Ready)
        .await;
    for (name, _, sentence) in &models {
        until("it has failed, and the good one answers", async || {
            let served = sidecar.call(request_of("good", &["a"])).await.unwrap();
            assert_eq!(sources(&served.results), [Source::Computed]);
            state(&sidecar, name).await == ModelState::Failed
        })
        .await;
        let message = sidecar.model(name).await.unwrap().message;
        assert!(message.contains(sentence), "{name}: {message}");
        let refused = sidecar.call(request_of(name, &["a"])).await.unwrap_err();
        refusal::metadata(&refused, Code::Unavailable, "MODEL_NOT_READY");
    }
    assert_eq!(sidecar.get("/live").await.0, 200);
    sidecar.stop().await;
}

/// Models that fail, each in its own way: the name, the manifest and a part of what is said.
fn bad_models(folder: &Path) -> Vec<(&'static str, Manifest, &'static str)> {
    let no_model = folder.join("no.onnx");
    std::fs::write(&no_model, "no model").unwrap();
    let no_model = json!({
        "uri": format!("file://{}", no_model.display()),
        "sha256": embark_tests::manifest::sha256(&no_model),
    });
    let test = json!([{
        "input": {"text": "a"}, "similarTo": {"text": "no such thing"}, "minCosine": "1",
    }]);
    let poisoned = json!([{
        "input": {"text": PANICS}, "similarTo": {"text": "a"}, "minCosine": "0",
    }]);
    let tiny = |name, pointer: &str, value: serde_json::Value, sentence| {
        (name, Manifest::tiny(name).with(pointer, value), sentence)
    };
    let poisonous = Manifest::poisonous("panics", folder, (8, 8)).with("/spec/selfTest", poisoned);
    vec![
        tiny("digest", "/spec/model/source/sha256", json!("0".repeat(64)), "is 0000"),
        tiny("file", "/spec/model/source", no_model, "spec.model.source: "),
        tiny("missing", "/spec/model/source/uri", json!("file://none.onnx"), "does not exist"),
        tiny("dimensions", "/spec/model/output/dimensions", json!(5), "dimensions: "),
        tiny("tokens", "/spec/input/text/tokenizer/uri", json!(WRONG_TOKENIZER), "tokenizer"),
        tiny("check", "/spec/selfTest", test, "spec.selfTest[0]: the cosine is "),
        (
            "panics",
            poisonous,
            "spec.selfTest[0].input: the model's runtime refused to run: attempt to divide by zero",
        ),
        tiny("memory", "/spec/cache/memory/sizeLimit", json!("1Ti"), "sizeLimit: it needs about"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_states_of_a_load_are_seen_in_their_order() {
    const ORDER: [&str; 7] =
        ["pending", "fetching", "verifying", "loading", "warming", "selfTest", "ready"];
    let folder = tempfile::tempdir().unwrap();
    let (url, gate) = slow_source().await;
    let test = json!([{"input": {"text": "a"}, "similarTo": {"text": "a"}, "minCosine": "1"}]);
    let manifest =
        Manifest::tiny("slow").with("/spec/model/source/uri", url).with("/spec/selfTest", test);
    let sidecar = Sidecar::start_listening(&Options::new(folder.path(), &manifest)).await;
    until("it is fetched", async || state(&sidecar, "slow").await == ModelState::Fetching).await;
    gate.notify_one();
    let mut seen: Vec<(usize, i32)> = Vec::new();
    until("it is ready", async || {
        let status = sidecar.model_status("slow").await["state"].as_str().unwrap().to_owned();
        let place = ORDER.iter().position(|state| *state == status).expect(&status);
        let described = sidecar.model("slow").await.unwrap().state;
        seen.push((place, described));
        status == "ready"
    })
    .await;
    // Of quick stages some may not be seen; those that are come in their order, over both ways.
    let in_order = |states: Vec<i64>| states.windows(2).all(|pair| pair[0] <= pair[1]);
    assert!(in_order(seen.iter().map(|(status, _)| *status as i64).collect()), "{seen:?}");
    assert!(
        in_order(seen.iter().map(|(_, described)| i64::from(*described)).collect()),
        "{seen:?}"
    );
    let ready = i32::from(ModelState::Ready);
    assert_eq!(seen.last().map(|(place, state)| (*place, *state)), Some((6, ready)), "{seen:?}");
    let line = sidecar.wait_for_line("ready").await;
    for stage in ["fetch", "check", "parse", "optimise", "probe", "warm_up", "self_test"] {
        assert!(line[stage].as_f64().is_some_and(|seconds| seconds >= 0.0), "{stage}: {line}");
    }
    sidecar.stop().await;
}

async fn state(sidecar: &Sidecar, model: &str) -> ModelState {
    sidecar.model(model).await.unwrap().state()
}

async fn healths<const N: usize>(sidecar: &Sidecar, services: [&str; N]) -> [ServingStatus; N] {
    let mut client = HealthClient::new(sidecar.channel().await);
    let mut found = [ServingStatus::Unknown; N];
    for (service, found) in services.into_iter().zip(&mut found) {
        let request = HealthCheckRequest { service: service.to_owned() };
        *found = client.check(request).await.unwrap().into_inner().status();
    }
    found
}

/// The tiny model at a URL whose answer waits until it is let go.
async fn slow_source() -> (String, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/model.onnx", listener.local_addr().unwrap());
    let gate = Arc::new(Notify::new());
    serve_model(listener, Some(Arc::clone(&gate)));
    (url, gate)
}

/// Answers one request with the tiny model, once `gate` is open.
fn serve_model(listener: TcpListener, gate: Option<Arc<Notify>>) {
    let file = programs::root().join("examples/models/tiny-static-minilm/model.onnx");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /model.onnx "));
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let body = std::fs::read(file).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
    });
}
