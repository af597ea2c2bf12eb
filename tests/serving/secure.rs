//! TLS: who the server is, who its clients are, and certificates that are replaced while it serves.

use std::{ffi::OsString, fs, os::unix::fs::symlink, path::Path, time::Duration};

use embark_sidecar::pb::client::{Source, embedding_service_client::EmbeddingServiceClient};
use embark_tests::{
    Authority, Manifest, Sidecar,
    authority::Subject,
    programs::embark,
    sidecar::{Options, request, sources, until},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// The folder that a server's files are read from: a link, as Kubernetes mounts a Secret.
const MOUNTED: &str = "mounted";

/// Writes `FOLDER/ca.crt` and the certificates of a server and a client.
fn issue(folder: &Path) {
    let authority = Authority::new(folder, "ca").unwrap();
    for name in ["server", "client"] {
        let hosts = ["127.0.0.1", "embark.test"];
        authority.issue(Subject { name, common_name: name, group: None, hosts: &hosts }).unwrap();
    }
}

/// Puts another folder in the mounted one's place, at once.
fn mount(folder: &Path, name: &str) {
    let (link, place) = (folder.join("next"), folder.join(MOUNTED));
    symlink(folder.join(name), &link).unwrap();
    fs::rename(link, place).unwrap();
}

/// Issues certificates and mounts them.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    issue(&folder.path().join("first"));
    mount(folder.path(), "first");
    folder
}

fn options(folder: &Path, manifest: &Manifest, asks_clients: bool) -> Options {
    let file = |name: &str| folder.join(MOUNTED).join(name).into_os_string();
    let mut options = Options::new(folder, manifest);
    let mut add = |argument: &str, name| {
        options.arguments.extend([OsString::from(argument), file(name)]);
    };
    add("--tls-cert", "server.crt");
    add("--tls-key", "server.key");
    if asks_clients {
        add("--tls-client-ca", "ca.crt");
    }
    options
}

/// A client that trusts the authority of a folder, and has its client's certificate.
async fn client(
    sidecar: &Sidecar,
    folder: &Path,
    has_identity: bool,
) -> Result<EmbeddingServiceClient<Channel>, tonic::transport::Error> {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.crt")));
    if has_identity {
        tls = tls.identity(Identity::from_pem(read("client.crt"), read("client.key")));
    }
    let endpoint = Channel::from_shared(format!("https://{}", sidecar.grpc())).unwrap();
    endpoint.tls_config(tls)?.connect().await.map(EmbeddingServiceClient::new)
}

async fn trouble(sidecar: &Sidecar) -> String {
    let status = sidecar.status().await;
    status["endpoint"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_is_encrypted_and_who_does_not_trust_the_server_says_why() {
    let folder = certificates();
    let sidecar = Sidecar::start(&options(folder.path(), &Manifest::tiny("tiny"), false)).await;
    let first = folder.path().join("first");
    let mut trusting = client(&sidecar, &first, false).await.unwrap();
    assert_eq!(trusting.embed(request(&["a"])).await.unwrap().into_inner().results.len(), 1);

    let ca = first.join("ca.crt").display().to_string();
    let https = format!("https://{}", sidecar.grpc());
    let embed =
        async |arguments: &[&str]| embark([&["embed"], arguments, &["a"]].concat(), b"").await;
    // Whoever names an authority means TLS.
    for address in [https.as_str(), sidecar.grpc()] {
        let finished = embed(&["--address", address, "--tls-ca", &ca]).await;
        assert_eq!((finished.code, finished.errors.as_str()), (0, ""), "{address}");
    }
    let other = tempfile::tempdir().unwrap();
    issue(other.path());
    let strange = other.path().join("ca.crt").display().to_string();
    for (arguments, sentence) in [
        (vec!["--address", &https, "--tls-ca", &strange], "no TLS with what answers at"),
        (vec!["--address", &https, "--tls-ca", &ca, "--tls-server-name", "other.test"], "no TLS"),
        (vec!["--address", sidecar.grpc()], "a server with TLS wants https://"),
        (vec!["--address", sidecar.grpc(), "--tls-server-name", "embark.test"], "no TLS"),
        (vec!["--address", &https, "--tls-ca", "missing.crt"], "--tls-ca: missing.crt: cannot be"),
    ] {
        let finished = embed(&arguments).await;
        assert!(finished.code == 1 && finished.errors.contains(sentence), "{finished:?}");
    }
    let named = ["--address", &https, "--tls-ca", &ca, "--tls-server-name", "embark.test"];
    assert_eq!(embed(&named).await.code, 0);
    let failures = sidecar.metric("embark_tls_handshake_failures_total", &[]).await;
    assert!(failures >= 2.0, "{failures}");
    let status = sidecar.status().await;
    assert_eq!(status["endpoint"]["tls"], true);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_and_no_call_is_lost_with_it() {
    let folder = certificates();
    let sidecar = Sidecar::start(&options(folder.path(), &Manifest::tiny("tiny"), false)).await;
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let mut before = client(&sidecar, &first, false).await.unwrap();
    issue(&second);
    mount(folder.path(), "second");
    let mut calls = 0;
    until("the new certificate is used", async || {
        calls += 1;
        before.embed(request(&[&format!("text {calls}")])).await.unwrap();
        client(&sidecar, &second, false).await.is_ok()
    })
    .await;
    assert!(client(&sidecar, &first, false).await.is_err(), "nobody trusts the old one any more");
    let again = before.embed(request(&["text 1"])).await.unwrap().into_inner();
    assert_eq!(sources(&again.results), [Source::HitMemory], "the old connection stands");
    assert!(sidecar.metric("embark_secret_reloads_total", &["\"tls\"", "applied"]).await > 0.5);

    // What cannot be used changes nothing, and is told of.
    issue(&folder.path().join("third"));
    fs::write(folder.path().join("third/server.crt"), "no certificate").unwrap();
    mount(folder.path(), "third");
    until("it is told of", async || trouble(&sidecar).await.contains("--tls-cert")).await;
    assert!(client(&sidecar, &second, false).await.is_ok());
    assert!(sidecar.metric("embark_secret_reloads_total", &["\"tls\"", "refused"]).await > 0.5);
    mount(folder.path(), "second");
    until("all is well again", async || trouble(&sidecar).await.is_empty()).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_prove_who_they_are_where_they_are_asked() {
    let folder = certificates();
    let sidecar = Sidecar::start(&options(folder.path(), &Manifest::tiny("tiny"), true)).await;
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let admitted =
        async |folder: &Path, has_identity| match client(&sidecar, folder, has_identity).await {
            Ok(mut client) => client.embed(request(&["a"])).await.is_ok(),
            Err(_) => false,
        };
    assert!(admitted(&first, true).await);
    assert!(!admitted(&first, false).await, "without a certificate");
    let strange = tempfile::tempdir().unwrap();
    issue(strange.path());
    fs::copy(first.join("ca.crt"), strange.path().join("ca.crt")).unwrap();
    assert!(!admitted(strange.path(), true).await, "with one of an authority that nobody named");

    let file = |name: &str| first.join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let all = ["embed", "--address", sidecar.grpc(), "--tls-ca", &ca];
    let finished = embark(all.into_iter().chain(["a"]), b"").await;
    assert!(finished.errors.contains("ertificate"), "{finished:?}");
    let identity = ["--tls-cert", &certificate, "--tls-key", &key, "a"];
    assert_eq!(embark(all.into_iter().chain(identity), b"").await.code, 0);

    // Clients of the old authority are not let in any more, once it is replaced.
    issue(&second);
    mount(folder.path(), "second");
    until("the new authority is asked", async || admitted(&second, true).await).await;
    fs::copy(second.join("ca.crt"), first.join("ca.crt")).unwrap();
    assert!(!admitted(&first, true).await);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_refused_at_the_start() {
    let folder = certificates();
    let first = folder.path().join("first");
    let other = tempfile::tempdir().unwrap();
    issue(other.path());
    fs::copy(other.path().join("server.key"), first.join("other.key")).unwrap();
    fs::write(first.join("empty"), "").unwrap();
    let mounted = |name: &str| folder.path().join(MOUNTED).join(name).display().to_string();
    let (certificate, key) = (mounted("server.crt"), mounted("server.key"));
    let (empty, others) = (mounted("empty"), mounted("other.key"));
    for (arguments, sentence) in [
        (vec!["--tls-cert", &certificate], "--tls-key"),
        (vec!["--tls-client-ca", &certificate], "--tls-cert"),
        (vec!["--tls-cert", &empty, "--tls-key", &key], "--tls-cert: "),
        (vec!["--tls-cert", &certificate, "--tls-key", &empty], "has no private key in PEM"),
        (vec!["--tls-cert", &certificate, "--tls-key", &others], "does not serve the certificate"),
        (vec!["--token-file", &empty], "has 0 tokens; it must have 1 to 64"),
    ] {
        let mut options = Options::new(folder.path(), &Manifest::tiny("tiny"));
        options.arguments = arguments.into_iter().map(OsString::from).collect();
        let ended = Sidecar::fail(&options).await;
        assert!(ended.code() == 2 && ended.log.contains(sentence), "{}", ended.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_agree_on_encryption_is_given_up_and_holds_no_end_up() {
    let folder = certificates();
    let sidecar = Sidecar::start(&options(folder.path(), &Manifest::tiny("tiny"), false)).await;
    // One that says nothing, and one that stops after the first bytes of a handshake.
    let mut silent = TcpStream::connect(sidecar.grpc()).await.unwrap();
    let mut broken = TcpStream::connect(sidecar.grpc()).await.unwrap();
    broken.write_all(&[0x16, 3, 1]).await.unwrap();
    for stream in [&mut silent, &mut broken] {
        // It is the server that ends the connection: cleanly, or with a reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert!(sidecar.metric("embark_tls_handshake_failures_total", &[]).await > 1.5);
    let _silent = TcpStream::connect(sidecar.grpc()).await.unwrap();
    // Less than the time that calls in flight are given.
    timeout(Duration::from_secs(25), sidecar.stop()).await.expect("it ends promptly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_asks_for_tls_is_served_with_it_alone() {
    let folder = certificates();
    let tls = serde_json::json!({"tls": {"secretName": "embark-tls"}});
    let manifest = Manifest::tiny("tiny").with("/spec/endpoint", tls);
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    let sentence = "spec.endpoint.tls: is asked for, and the server has none; give it --tls-cert and --tls-key";
    assert!(ended.code() == 2 && ended.log.contains(sentence), "{}", ended.log);
    let sidecar = Sidecar::start(&options(folder.path(), &manifest, false)).await;
    assert!(client(&sidecar, &folder.path().join("first"), false).await.is_ok());
    sidecar.stop().await;
}
