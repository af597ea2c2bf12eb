use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse as _, Response as Answer},
};
use embark_crds::contract::{Artifact, Location};
use serde_json::json;

use super::*;
use crate::model::{
    artifact::{ArtifactStore, FetchError, FetchSettings, Request},
    test_support::{artifact, sha256},
};

const CONTENT: &[u8] = b"a model of a registry";
const TITLE: &str = "model.onnx";
/// `user:word` in base64, in Docker's configuration for the test's registry.
const LOGIN: &str = "dXNlcjp3b3Jk";

/// A registry on loopback that gives a token to who knows the login.
struct Registry {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it holds and how it behaves.
#[derive(Clone)]
struct Held {
    manifest: Vec<u8>,
    /// What it asks for; `{}` stands for its own address.
    challenge: &'static str,
    /// Bytes of the layer's first answer after which it breaks off; 0: it does not.
    breaks_after: usize,
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    async fn start(manifest: Vec<u8>, challenge: &'static str, breaks_after: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (of_held, seen) = (address.clone(), asked.clone());
        let held = Held { manifest, challenge, breaks_after, address: of_held, asked: seen };
        let router = Router::new().fallback(answer).with_state(held);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Registry { address, asked }
    }

    async fn fetch(&self, manifest: &[u8], login: Option<&str>) -> Result<Vec<u8>, FetchError> {
        let folder = tempfile::tempdir().unwrap();
        let settings = FetchSettings {
            idle_timeout: Duration::from_secs(5),
            tries: 2,
            backoff: Duration::from_millis(1),
            proxy: false,
            ..FetchSettings::default()
        };
        let auths = login.map(|auth| json!({"auths": {self.address.as_str(): {"auth": auth}}}));
        let variables = auths.map(|json| ("DOCKER_AUTH_CONFIG".to_owned(), json.to_string()));
        let environment: Environment = variables.into_iter().collect();
        let reference = format!("{}/models/tiny@sha256:{}", self.address, sha256(manifest));
        let location = Location::Oci { reference, title: TITLE.to_owned() };
        let artifact = Artifact { has_secret: login.is_some(), ..artifact(location, CONTENT) };
        let (field, size_limit) = ("spec.model.source", 1 << 20);
        let base = Path::new("/nowhere");
        let request = Request { artifact: &artifact, field, size_limit, base, progress: &|_| {} };
        let store = ArtifactStore::with(folder.path(), settings, environment);
        store.fetch(&request).await.map(Vec::from)
    }
}

async fn answer(State(held): State<Held>, uri: Uri, headers: HeaderMap) -> Answer {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let authorization = text(header::AUTHORIZATION);
    let before = {
        let mut asked = held.asked.lock();
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let known = authorization.as_deref().unwrap_or("-");
        asked.push(format!("{path} {known}"));
        asked.iter().filter(|line| line.contains("/blobs/") && !line.ends_with(" -")).count()
    };
    if uri.path() == "/token" {
        return match authorization.as_deref() {
            Some("Basic dXNlcjp3b3Jk") => r#"{"token": "t0ken"}"#.into_response(),
            _ => StatusCode::FORBIDDEN.into_response(),
        };
    }
    let knows = match held.challenge {
        "" => true,
        "Basic" => authorization.as_deref() == Some("Basic dXNlcjp3b3Jk"),
        _ => authorization.as_deref() == Some("Bearer t0ken"),
    };
    if !knows {
        let challenge = held.challenge.replace("{}", &held.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if uri.path().starts_with("/v2/models/tiny/manifests/") {
        return held.manifest.into_response();
    }
    if uri.path() != format!("/v2/models/tiny/blobs/sha256:{}", sha256(CONTENT)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let total = CONTENT.len();
    let range = text(header::RANGE);
    let from = range.map(|range| range[6..].trim_end_matches('-').parse::<usize>().unwrap());
    if let Some(from) = from {
        let range = format!("bytes {from}-{}/{total}", total - 1);
        let part = &CONTENT[from..];
        return (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], part)
            .into_response();
    }
    if held.breaks_after == 0 || before > 1 {
        return CONTENT.into_response();
    }
    let piece = bytes::Bytes::from_static(&CONTENT[..held.breaks_after]);
    let broken = futures_util::stream::unfold(Some(piece), |piece| async move {
        tokio::task::yield_now().await;
        Some(match piece {
            Some(piece) => (Ok(piece), None),
            None => (Err(std::io::Error::other("gone")), None),
        })
    });
    Answer::builder().header(header::CONTENT_LENGTH, total).body(Body::from_stream(broken)).unwrap()
}

fn manifest_of(content: &[u8]) -> Vec<u8> {
    let title = "org.opencontainers.image.title";
    let layer = json!({
        "mediaType": "application/octet-stream",
        "digest": format!("sha256:{}", sha256(content)),
        "size": content.len(),
        "annotations": {title: TITLE},
    });
    json!({"schemaVersion": 2, "layers": [layer]}).to_string().into_bytes()
}

const BEARER: &str = "Bearer realm=\"http://{}/token\",service=\"test\"";

#[tokio::test]
async fn the_layer_is_fetched_by_its_title() {
    let manifest = manifest_of(CONTENT);
    let registry = Registry::start(manifest.clone(), "", 0).await;
    assert_eq!(registry.fetch(&manifest, None).await.unwrap(), CONTENT);
    assert_eq!(registry.asked.lock().len(), 2);
}

#[tokio::test]
async fn a_registry_that_asks_is_told_the_login() {
    let manifest = manifest_of(CONTENT);
    for (challenge, requests) in [("Basic", 3), (BEARER, 4)] {
        let registry = Registry::start(manifest.clone(), challenge, 0).await;
        assert_eq!(registry.fetch(&manifest, Some(LOGIN)).await.unwrap(), CONTENT);
        assert_eq!(registry.asked.lock().len(), requests, "{:?}", registry.asked.lock());
    }
    let registry = Registry::start(manifest.clone(), BEARER, 0).await;
    registry.fetch(&manifest, Some(LOGIN)).await.unwrap();
    let asked = registry.asked.lock().clone();
    let token = "/token?scope=repository%3Amodels%2Ftiny%3Apull&service=test Basic dXNlcjp3b3Jk";
    assert_eq!(asked[1], token);
}

#[tokio::test]
async fn a_login_that_does_not_do_is_told_and_not_shown() {
    let manifest = manifest_of(CONTENT);
    let other = "b3RoZXI6aHVzaA==";
    for (challenge, login, problem) in [
        (BEARER, None, "gives no token: answered 403 Forbidden"),
        (BEARER, Some(other), "gives no token: answered 403 Forbidden"),
        ("Basic", None, "asks who we are, and secretRef names no Secret"),
        ("Basic", Some(other), "answered 401 Unauthorized"),
        ("Negotiate", Some(LOGIN), "answered 401 Unauthorized"),
        ("Bearer realm=\"ftp://{}\"", Some(LOGIN), "names no https:// URL that gives tokens"),
    ] {
        let registry = Registry::start(manifest.clone(), challenge, 0).await;
        let error = registry.fetch(&manifest, login).await.unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.ends_with(problem), "{challenge} {sentence}");
        assert!(!error.is_transient() && !sentence.contains("hush"), "{sentence}");
    }
}

#[tokio::test]
async fn a_layer_that_broke_off_goes_on_where_it_ended() {
    let manifest = manifest_of(CONTENT);
    let registry = Registry::start(manifest.clone(), BEARER, 7).await;
    assert_eq!(registry.fetch(&manifest, Some(LOGIN)).await.unwrap(), CONTENT);
    let asked = registry.asked.lock().clone();
    let manifests = asked.iter().filter(|line| line.contains("/manifests/")).count();
    // Once to be asked who we are, once to be answered.
    assert_eq!(manifests, 2, "{asked:?}");
}

#[tokio::test]
async fn another_manifest_or_layer_than_is_pinned_is_refused() {
    let manifest = manifest_of(CONTENT);
    let registry = Registry::start(manifest_of(b"another"), "", 0).await;
    let error = registry.fetch(&manifest, None).await.unwrap_err().to_string();
    assert!(error.ends_with("gave another manifest than its digest names"), "{error}");

    let other = manifest_of(b"another");
    let error = registry.fetch(&other, None).await.unwrap_err().to_string();
    assert!(error.contains("has a layer of this title whose sha256 is "), "{error}");

    let endless = vec![b' '; MAX_MANIFEST_BYTES + 1];
    let registry = Registry::start(endless.clone(), "", 0).await;
    let error = registry.fetch(&endless, None).await.unwrap_err().to_string();
    assert!(error.ends_with("answered with more than 4194304 bytes"), "{error}");
}

#[test]
fn references_are_taken_apart() {
    let digest = "a".repeat(64);
    let of = |name: &str, plain: &str| {
        let place = Place::of(&format!("{name}@sha256:{digest}"), plain)?;
        Some((place.origin, place.repository))
    };
    for (name, plain, origin, repository) in [
        ("ghcr.io/org/repo", "", "https://ghcr.io", "org/repo"),
        ("docker.io/tiny", "", "https://registry-1.docker.io", "library/tiny"),
        ("docker.io/org/tiny", "", "https://registry-1.docker.io", "org/tiny"),
        ("localhost:5000/a", "", "http://localhost:5000", "a"),
        ("127.0.0.7:5000/a", "", "http://127.0.0.7:5000", "a"),
        ("registry.svc:5000/a", "other, registry.svc:5000", "http://registry.svc:5000", "a"),
        ("registry.svc:5001/a", "registry.svc:5000", "https://registry.svc:5001", "a"),
    ] {
        assert_eq!(of(name, plain), Some((origin.to_owned(), repository.to_owned())));
    }
    assert_eq!(of("repo", ""), None);
    assert_eq!(Place::of("ghcr.io/org/repo:tag", ""), None);
}
