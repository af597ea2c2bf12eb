//! Models that cannot be served: a sentence that names the field, and nobody else is harmed.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use embark_sidecar::pb::client::{GetModelRequest, ModelState};
use embark_tests::{
    Manifest, Sidecar,
    manifest::TINY_SHA256,
    onnx, programs,
    sidecar::{Options, request, until},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tonic::Code;
use tonic_types::StatusExt as _;

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const MODEL: &str = "examples/models/tiny-static-minilm/model.onnx";

/// The one sentence with which a server of this model alone ends, without the model's name.
async fn refused(folder: &Path, manifest: &Manifest) -> String {
    refused_with(&Options::new(folder, manifest)).await
}

async fn refused_with(options: &Options) -> String {
    let ended = Sidecar::fail(options).await;
    assert_eq!(ended.code(), 1, "{}", ended.log);
    let sentences = ended.sentences();
    let [sentence] = sentences[..] else { panic!("not one sentence: {}", ended.log) };
    let sentence = sentence.strip_prefix("error: bad: ").expect("it names the model");
    let logged = ended.log.lines().any(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        line["level"] == "ERROR" && line["message"] == format!("failed to load: {sentence}")
    });
    assert!(logged, "the log says it too: {}", ended.log);
    sentence.to_owned()
}

fn tiny() -> Manifest {
    Manifest::tiny("bad")
}

/// A manifest whose model is a file of these bytes, with its right digest.
async fn of_file(folder: &Path, bytes: &[u8]) -> Manifest {
    let file = folder.join("model.onnx");
    fs::write(&file, bytes).unwrap();
    tiny()
        .with("/spec/model/source/uri", "file://model.onnx")
        .with("/spec/model/source/sha256", sha256(&file).await)
}

async fn sha256(file: &Path) -> String {
    let mut command = tokio::process::Command::new("sha256sum");
    command.arg(file);
    let sum = programs::run(command, b"").await;
    assert_eq!(sum.code, 0, "{sum:?}");
    sum.output[..64].to_owned()
}

/// A server of one answer, as it stands; gives the URL of a file on it.
async fn http(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/model.onnx", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            // The request is shorter than that; who closes early has read enough.
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(&answer).await;
        }
    });
    url
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn complete(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("content-length: {}\r\n", body.len()), body)
}

#[tokio::test]
async fn another_file_than_the_digest_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = programs::root().join(MODEL);
    let url = http(complete(&fs::read(&model).unwrap())).await;
    let file = format!("file://{}", model.display());
    for uri in ["builtin://tiny-static-minilm/model.onnx", &file, &url] {
        let manifest =
            tiny().with("/spec/model/source/uri", uri).with("/spec/model/source/sha256", ZEROS);
        let sentence = refused(folder.path(), &manifest).await;
        let is = format!("is {ZEROS}, but the file's sha256 is {TINY_SHA256}");
        assert_eq!(sentence, format!("spec.model.source.sha256: {is}"), "{uri}");
    }
    let manifest = tiny().with("/spec/input/text/tokenizer/sha256", ZEROS);
    let sentence = refused(folder.path(), &manifest).await;
    assert!(sentence.starts_with("spec.input.text.tokenizer.sha256: is 0000"), "{sentence}");
}

#[tokio::test]
async fn a_file_that_is_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b"<html><body>Not Found</body></html>"[..], b"", &[0xff; 4096]] {
        let manifest = of_file(folder.path(), bytes).await;
        let sentence = refused(folder.path(), &manifest).await;
        let words = "spec.model.source: the file is not an ONNX model: ";
        assert!(sentence.starts_with(words), "{sentence}");
    }
}

#[tokio::test]
async fn an_operator_that_the_runtime_does_not_have_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = of_file(folder.path(), &onnx::lookup(30_522, "Frobnicate")).await;
    let manifest =
        manifest.with("/spec/model/output/dimensions", 4).with("/spec/input/text/pooling", "Mean");
    let expected = "spec.model.source: the model needs operator \"Frobnicate\" of \"ai.onnx\" \
                    (node \"make_vectors\"), which the runtime does not have";
    assert_eq!(refused(folder.path(), &manifest).await, expected);
}

#[tokio::test]
async fn a_vector_of_another_length_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = tiny().with("/spec/model/output/dimensions", 384);
    let sentence = refused(folder.path(), &manifest).await;
    let words = "spec.model.output.dimensions: 384, but output ";
    assert!(sentence.starts_with(words) && sentence.ends_with(" has 128"), "{sentence}");
}

#[tokio::test]
async fn an_output_that_is_not_there_is_refused_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = tiny().with("/spec/model/output/name", "pooled");
    let sentence = refused(folder.path(), &manifest).await;
    let words = "spec.model.output.name: \"pooled\" is no output of the model; its outputs: ";
    assert!(sentence.starts_with(words), "{sentence}");
}

#[tokio::test]
async fn a_vector_for_each_token_needs_pooling() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = of_file(folder.path(), &onnx::lookup(30_522, "Identity")).await;
    let manifest = manifest.with("/spec/model/output/dimensions", 4);
    let sentence = refused(folder.path(), &manifest).await;
    assert!(sentence.starts_with("spec.input.text.pooling: None, but output "), "{sentence}");
    assert!(sentence.ends_with("it must be Mean, CLS or LastToken"), "{sentence}");
    let sidecar =
        Sidecar::serve(folder.path(), &manifest.with("/spec/input/text/pooling", "Mean")).await;
    assert_eq!(sidecar.embed(&["a text"]).await[0].vector.len(), 4);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_tokenizer_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = tiny().with("/spec/input/text/tokenizer/uri", "file://tokenizer.json");
    let file = folder.path().join("tokenizer.json");
    let expected = format!("spec.input.text.tokenizer.uri: file {file:?} does not exist");
    assert_eq!(refused(folder.path(), &manifest).await, expected);

    let manifest = tiny().without("/spec/input/text/tokenizer");
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    assert_eq!(ended.code(), 2, "{}", ended.log);
    let sentences = ended.sentences();
    assert_eq!(sentences.len(), 1, "{sentences:?}");
    assert!(sentences[0].ends_with("spec.input.text.tokenizer: is required"), "{sentences:?}");
}

#[tokio::test]
async fn a_file_that_is_no_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    for text in ["{}", "no json", "[1, 2"] {
        fs::write(&file, text).unwrap();
        let manifest = tiny()
            .with("/spec/input/text/tokenizer/uri", "file://tokenizer.json")
            .with("/spec/input/text/tokenizer/sha256", sha256(&file).await);
        let sentence = refused(folder.path(), &manifest).await;
        let words = "spec.input.text.tokenizer: the file is not a Hugging Face tokenizer.json: ";
        assert!(sentence.starts_with(words), "{sentence}");
    }
}

#[tokio::test]
async fn a_tokenizer_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = of_file(folder.path(), &onnx::lookup(100, "Identity")).await;
    let manifest =
        manifest.with("/spec/model/output/dimensions", 4).with("/spec/input/text/pooling", "Mean");
    let expected = "spec.input.text.tokenizer: does not fit the model: its highest id is 30521, \
                    but the model's embedding table has 100 rows";
    assert_eq!(refused(folder.path(), &manifest).await, expected);
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_named() {
    let folder =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let manifest = of_file(folder.path(), b"not for everybody").await;
    let file = folder.path().join("model.onnx");
    let field = "spec.model.source.uri";
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let options = Options::new(folder.path(), &manifest).as_nobody(folder.path());
    let denied = "cannot be read: Permission denied (os error 13)";
    assert_eq!(refused_with(&options).await, format!("{field}: file {file:?} {denied}"));

    fs::remove_file(&file).unwrap();
    let sentence = refused(folder.path(), &manifest).await;
    assert_eq!(sentence, format!("{field}: file {file:?} does not exist"));

    fs::create_dir(&file).unwrap();
    let sentence = refused(folder.path(), &manifest).await;
    assert_eq!(sentence, format!("{field}: file {file:?} is a folder; name the file in it"));

    let manifest = tiny().with("/spec/model/source/uri", "builtin://tiny/model.onnx");
    let sentence = refused(folder.path(), &manifest).await;
    let builtin =
        "builtin://tiny/model.onnx does not exist; built in: builtin://tiny-static-minilm/";
    assert!(sentence.starts_with(&format!("{field}: {builtin}")), "{sentence}");
}

#[tokio::test]
async fn a_server_that_does_not_have_the_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let url = http(answer("404 Not Found", "content-length: 0\r\n", b"")).await;
    let manifest = tiny().with("/spec/model/source/uri", format!("{url}?key=secret"));
    let expected = format!("spec.model.source.uri: {url} answered 404 Not Found");
    assert_eq!(refused(folder.path(), &manifest).await, expected);
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_whether_or_not_its_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let body = vec![7; (1 << 20) + 1];
    let said = http(complete(&body)).await;
    let unsaid = http(answer("200 OK", "", &body)).await;
    for uri in [said, unsaid, "builtin://tiny-static-minilm/model.onnx".to_owned()] {
        let manifest =
            tiny().with("/spec/model/source/uri", uri).with("/spec/model/sizeLimit", "1Mi");
        let expected = "spec.model.source.uri: the file is larger than 1048576 bytes, \
                        which is all that spec.model.sizeLimit allows";
        assert_eq!(refused(folder.path(), &manifest).await, expected);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for argument in ["--listen", "--admin-listen"] {
        let mut options = Options::new(folder.path(), &tiny());
        options.arguments = vec![argument.into(), address.clone().into()];
        let ended = Sidecar::fail(&options).await;
        assert_eq!(ended.code(), 1, "{}", ended.log);
        let why = "cannot be listened on: another process listens there";
        assert_eq!(ended.sentences(), [format!("error: {argument}: {address} {why}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_model_does_not_take_a_good_one_down() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::tiny("good"));
    let bad = tiny().with("/spec/model/source/sha256", ZEROS);
    options.manifests.push(bad.write(folder.path()));
    let sidecar = Sidecar::start_listening(&options).await;
    let state = async |model: &str| {
        let request = GetModelRequest { model: model.to_owned() };
        let reply = sidecar.embeddings().await.get_model(request).await.unwrap();
        reply.into_inner().model.unwrap()
    };
    until("the good model is ready", async || state("good").await.state() == ModelState::Ready)
        .await;
    until("the bad model has failed", async || state("bad").await.state() == ModelState::Failed)
        .await;
    let sentence = "spec.model.source.sha256: is 0000";
    let message = state("bad").await.message;
    assert!(message.starts_with(sentence), "{message}");

    let mut good = request(&["a text"]);
    good.model = "good".to_owned();
    assert_eq!(sidecar.call(good).await.unwrap().results[0].vector.len(), 128);
    let mut bad = request(&["a text"]);
    bad.model = "bad".to_owned();
    let status = sidecar.call(bad).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "MODEL_NOT_READY");
    let expected = format!("model \"bad\" is not ready: {message}");
    assert_eq!(status.message(), expected);

    assert_eq!(sidecar.get("/ready").await, (503, format!("{expected}\n")));
    assert_eq!(sidecar.get("/live").await.0, 200);
    let models = sidecar.status().await["models"].clone();
    assert_eq!(models[0]["state"], "failed");
    assert_eq!(models[0]["message"], message);
    assert_eq!(models[1]["state"], "ready");
    sidecar.stop().await;
}
