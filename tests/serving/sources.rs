//! Models out of servers that speak the real protocols, on loopback: an S3, a Google Cloud Storage, an Azure and a
//! registry of containers. tests/run installs them.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use embark_sidecar::model::artifact::install_tls_provider;
use embark_tests::{
    Manifest, Mount, Sidecar, programs,
    sidecar::{Options, until},
};
use reqwest::{Client, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// What the emulator of Azure knows, as its manual says.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// `user:word`, as a file of Apache has it.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuQDoL5Sa/TtfS/XN4AY/jgq.HBbO1BTu\n";

/// A server that ends with the test.
struct Server {
    address: String,
    _child: Child,
}

impl Server {
    /// Starts a program on a port that was free a moment ago.
    async fn start(arguments: impl FnOnce(u16) -> Command) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = arguments(port).kill_on_drop(true).spawn().expect("the server starts");
        let address = format!("127.0.0.1:{port}");
        until("the server listens", async || TcpStream::connect(&address).await.is_ok()).await;
        Server { address, _child: child }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A program that tests/run installed for these tests.
fn installed(path: &str) -> PathBuf {
    programs::from_environment("EMBARK_TEST_SOURCES").join(path)
}

fn model() -> PathBuf {
    programs::root().join("examples/models/tiny-static-minilm/model.onnx")
}

/// Serves the tiny model from `uri` with these variables, and embeds a text.
async fn served(uri: &str, has_secret: bool, variables: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = manifest(uri, has_secret);
    let sidecar = Sidecar::start(&options(folder.path(), &manifest, variables)).await;
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    let (_, config) = sidecar.get("/config").await;
    let (_, status) = sidecar.get("/status").await;
    let said = [("/config", config), ("/status", status), ("the log", sidecar.log())];
    for (name, value) in variables {
        let is_secret = ["KEY", "AUTH"].iter().any(|part| name.contains(part));
        for (place, text) in &said {
            assert!(!is_secret || !text.contains(value), "{name} is in {place}");
        }
    }
    sidecar.stop().await;
}

/// A server with these variables.
fn options(folder: &Path, manifest: &Manifest, variables: &[(&str, &str)]) -> Options {
    let mut options = Options::new(folder, manifest);
    options.wrapper.push("env".into());
    options.wrapper.extend(variables.iter().map(|(name, value)| format!("{name}={value}").into()));
    options
}

fn manifest(uri: &str, has_secret: bool) -> Manifest {
    let manifest = Manifest::tiny("tiny").with("/spec/model/source/uri", uri);
    let manifest = match uri.starts_with("oci://") {
        true => manifest.with("/spec/model/source/path", "model.onnx"),
        false => manifest,
    };
    match has_secret {
        true => manifest.with("/spec/model/source/secretRef", json!({"name": "credentials"})),
        false => manifest,
    }
}

/// A folder with the model in a bucket of it.
fn bucket() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("models/tiny")).unwrap();
    std::fs::copy(model(), folder.path().join("models/tiny/model.onnx")).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_out_of_s3() {
    let folder = bucket();
    let server = s3(folder.path()).await;
    let url = server.url();
    served("s3://models/tiny/model.onnx", true, &of_s3(&url)).await;
    served("s3://models/tiny/model.onnx", false, &of_s3(&url)).await;
}

/// What is fetched is served all the same, and no part of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_while_a_model_comes_in_costs_its_copy_alone() {
    let folder = bucket();
    let server = s3(folder.path()).await;
    let url = server.url();
    let disk = Mount::tmpfs(&folder.path().join("small"), "size=2m");
    let manifest = manifest("s3://models/tiny/model.onnx", false);
    let mut options = options(folder.path(), &manifest, &of_s3(&url));
    options.data = disk.path().join("data");
    for _ in 0..2 {
        let sidecar = Sidecar::start(&options).await;
        assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
        assert!(sidecar.log().contains("a fetched model cannot be kept"), "{}", sidecar.log());
        for part in ["sha256", "unfinished"] {
            let left = std::fs::read_dir(options.data.join("artifacts").join(part)).unwrap();
            assert_eq!(left.count(), 0, "{part}");
        }
        sidecar.stop().await;
    }
}

/// An S3 whose buckets are the folders of a folder.
async fn s3(folder: &Path) -> Server {
    Server::start(|port| {
        let mut command = Command::new(installed("bin/s3s-fs"));
        let port = port.to_string();
        command.args([
            "--access-key",
            "id-of-s3",
            "--secret-key",
            "word-of-s3",
            "--host",
            "127.0.0.1",
        ]);
        command.args(["--port", &port]).arg(folder);
        command
    })
    .await
}

fn of_s3(url: &str) -> [(&str, &str); 4] {
    [
        ("AWS_ACCESS_KEY_ID", "id-of-s3"),
        ("AWS_SECRET_ACCESS_KEY", "word-of-s3"),
        ("AWS_ENDPOINT", url),
        ("AWS_ALLOW_HTTP", "true"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_out_of_google_cloud_storage() {
    let folder = bucket();
    let server = Server::start(|port| {
        let mut command = Command::new(installed("bin/fake-gcs-server"));
        let (port, host) = (port.to_string(), format!("127.0.0.1:{port}"));
        command.args(["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]);
        command.args(["-port", &port, "-public-host", &host, "-data"]).arg(folder.path());
        command
    })
    .await;
    let url = server.url();
    let variables = [("GOOGLE_BASE_URL", url.as_str()), ("GOOGLE_SKIP_SIGNATURE", "true")];
    served("gs://models/tiny/model.onnx", true, &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_out_of_azure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|port| {
        let mut command = Command::new(installed("azurite/node_modules/.bin/azurite-blob"));
        let port = port.to_string();
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port, "--skipApiVersionCheck"]);
        command.args(["--silent", "--location"]).arg(folder.path());
        command
    })
    .await;
    let endpoint = format!("{}/{AZURITE_ACCOUNT}", server.url());
    upload(&endpoint).await;
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY),
        ("AZURE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
    ];
    served("az://models/tiny/model.onnx", true, &variables).await;
}

/// Makes the container and puts the model in it.
async fn upload(endpoint: &str) {
    let mut python = Command::new(programs::from_environment("EMBARK_TEST_PYTHON"));
    python.arg(programs::root().join("tests/serving/azure.py"));
    python.args([endpoint, AZURITE_ACCOUNT, AZURITE_KEY, "models", "tiny/model.onnx"]).arg(model());
    let finished = programs::run(python, b"").await;
    assert_eq!(finished.code, 0, "{}", finished.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_out_of_a_registry() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, HTPASSWD).unwrap();
    let open = registry(folder.path(), json!(null)).await;
    let reference = push(&open).await;
    served(&format!("oci://{}/{reference}", open.address), false, &[]).await;
    drop(open);

    let auth = json!({"htpasswd": {"realm": "test", "path": users.display().to_string()}});
    let closed = registry(folder.path(), auth).await;
    let login =
        json!({"auths": {(closed.address.as_str()): {"username": "user", "password": "word"}}});
    let login = login.to_string();
    let uri = format!("oci://{}/{reference}", closed.address);
    served(&uri, true, &[("DOCKER_AUTH_CONFIG", login.as_str())]).await;
}

/// A registry that keeps what it holds in a folder.
async fn registry(folder: &Path, auth: serde_json::Value) -> Server {
    let (folder, file) = (folder.to_owned(), folder.join("registry.yaml"));
    Server::start(move |port| {
        let mut configuration = json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.join("data").display().to_string()}},
            "http": {"addr": format!("127.0.0.1:{port}")},
        });
        if !auth.is_null() {
            configuration["auth"] = auth;
        }
        std::fs::write(&file, configuration.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        command
    })
    .await
}

/// Pushes the model as an artefact; what it is called behind the registry's name.
async fn push(registry: &Server) -> String {
    install_tls_provider();
    let client = Client::builder().no_proxy().build().unwrap();
    let bytes = std::fs::read(model()).unwrap();
    let (size, empty) = (bytes.len(), b"{}".to_vec());
    let (model, config) = (digest(&bytes), digest(&empty));
    for (digest, blob) in [(&model, bytes), (&config, empty)] {
        let uploads = format!("{}/v2/models/tiny/blobs/uploads/", registry.url());
        let begun = client.post(uploads).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let to = format!("{location}&digest={digest}");
        let put = client.put(to).header("content-type", "application/octet-stream").body(blob);
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let title = json!({"org.opencontainers.image.title": "model.onnx"});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{
            "mediaType": "application/octet-stream",
            "digest": model,
            "size": size,
            "annotations": title,
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    let pinned = digest(&manifest);
    let url = format!("{}/v2/models/tiny/manifests/{pinned}", registry.url());
    let put = client.put(url).header("content-type", kind).body(manifest);
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    format!("models/tiny@{pinned}")
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
