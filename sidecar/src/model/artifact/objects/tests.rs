use std::{path::Path as Folder, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse as _, Response},
};
use embark_crds::contract::{Artifact, Location};
use parking_lot::Mutex;

use super::*;
use crate::model::{
    artifact::{ArtifactStore, FetchError, Request},
    test_support::artifact,
};

const CONTENT: &[u8] = b"a model of a bucket";

/// What was asked for: path and query, and who asked.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// What the store answers after so many requests.
type Answer = fn(usize, Option<usize>) -> Response;

/// A store of one object, whatever its name.
async fn start(answer: Answer) -> (String, Asked) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let handler = move |State(asked): State<Asked>, uri: Uri, headers: HeaderMap| async move {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let path = uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
        let before = {
            let mut asked = asked.lock();
            asked.push((path, text(header::AUTHORIZATION)));
            asked.len() - 1
        };
        let from =
            text(header::RANGE).map(|range| range[6..].trim_end_matches('-').parse().unwrap());
        answer(before, from)
    };
    let router = Router::new().fallback(handler).with_state(asked.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

fn whole(_: usize, from: Option<usize>) -> Response {
    let headers = [
        (header::ETAG, "\"tag\"".to_owned()),
        (header::LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT".to_owned()),
    ];
    match from {
        None => (headers, CONTENT).into_response(),
        Some(from) => {
            let total = CONTENT.len();
            let range = format!("bytes {from}-{}/{total}", total - 1);
            let range = [(header::CONTENT_RANGE, range)];
            (StatusCode::PARTIAL_CONTENT, headers, range, &CONTENT[from..]).into_response()
        }
    }
}

async fn fetch(
    url: &str,
    variables: &[(&str, &str)],
    has_secret: bool,
) -> Result<Vec<u8>, FetchError> {
    let folder = tempfile::tempdir().unwrap();
    let settings = FetchSettings {
        idle_timeout: Duration::from_secs(5),
        tries: 2,
        backoff: Duration::from_millis(1),
        ..FetchSettings::default()
    };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Environment = variables.iter().map(owned).collect();
    let location = Location::ObjectStore { url: url.to_owned() };
    let artifact = Artifact { has_secret, ..artifact(location, CONTENT) };
    let (field, size_limit, base) = ("spec.model.source", 1 << 20, Folder::new("/nowhere"));
    let request = Request { artifact: &artifact, field, size_limit, base, progress: &|_| {} };
    let store = ArtifactStore::with(folder.path(), settings, environment);
    store.fetch(&request).await.map(Vec::from)
}

fn s3(endpoint: &str) -> [(&str, &str); 4] {
    [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
    ]
}

#[tokio::test]
async fn an_object_of_s3_is_fetched_with_a_signature() {
    let (endpoint, asked) = start(whole).await;
    for has_secret in [false, true] {
        let found = fetch("s3://bucket/a/model.onnx", &s3(&endpoint), has_secret).await;
        assert_eq!(found.unwrap(), CONTENT);
    }
    let asked = asked.lock().clone();
    assert_eq!(asked[0].0, "/bucket/a/model.onnx");
    assert!(asked[0].1.as_ref().unwrap().starts_with("AWS4-HMAC-SHA256 Credential=key/"));
}

#[tokio::test]
async fn an_object_of_google_is_fetched() {
    let (endpoint, asked) = start(whole).await;
    let variables = [("GOOGLE_BASE_URL", endpoint.as_str()), ("GOOGLE_SKIP_SIGNATURE", "true")];
    assert_eq!(fetch("gs://bucket/model", &variables, true).await.unwrap(), CONTENT);
    assert_eq!(asked.lock()[0].0, "/bucket/model");
}

#[tokio::test]
async fn a_blob_of_azure_is_fetched() {
    let (endpoint, asked) = start(whole).await;
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA=="),
        ("AZURE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
    ];
    assert_eq!(fetch("az://container/model.onnx", &variables, true).await.unwrap(), CONTENT);
    let asked = asked.lock().clone();
    assert_eq!(asked[0].0, "/container/model.onnx");
    assert!(asked[0].1.as_ref().unwrap().starts_with("SharedKey account:"));
}

#[tokio::test]
async fn a_passing_failure_of_a_store_is_tried_again_and_a_refusal_is_not() {
    let (endpoint, asked) = start(|before, from| match before {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => whole(before, from),
    })
    .await;
    assert_eq!(fetch("s3://bucket/a", &s3(&endpoint), false).await.unwrap(), CONTENT);
    assert_eq!(asked.lock().len(), 2);
    for (answer, sentence, transient) in [
        ((|_, _| StatusCode::NOT_FOUND.into_response()) as Answer, "answered 404 Not Found", false),
        ((|_, _| StatusCode::FORBIDDEN.into_response()) as Answer, "answered 403 Forbidden", false),
        (
            (|_, _| StatusCode::BAD_GATEWAY.into_response()) as Answer,
            "answered 502 Bad Gateway (2 tries)",
            true,
        ),
    ] {
        let (endpoint, _) = start(answer).await;
        let error = fetch("s3://bucket/a", &s3(&endpoint), false).await.unwrap_err();
        let expected = format!("spec.model.source.uri: s3://bucket/a {sentence}");
        assert_eq!((error.to_string(), error.is_transient()), (expected, transient));
    }
}

#[tokio::test]
async fn credentials_that_are_not_there_are_told_without_a_request() {
    let error = fetch("s3://bucket/a", &[], true).await.unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.starts_with("spec.model.source.secretRef: names a Secret"), "{sentence}");
    assert!(sentence.ends_with("set AWS_…, such as AWS_ACCESS_KEY_ID"), "{sentence}");
    let wrong = [("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "hush!")];
    let error = fetch("az://container/a", &wrong, true).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
}

#[tokio::test]
async fn no_address_with_a_signature_is_repeated() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_SAS_KEY", "sv=1&sig=hush"),
        ("AZURE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
    ];
    let error = fetch("az://container/a", &variables, false).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
}

#[test]
fn a_status_is_read_of_words() {
    let answered = of_words("Server returned non-2xx status code: 429 Too Many Requests: slow");
    assert_eq!(answered.problem, "answered 429 Too Many Requests");
    assert!(answered.transient);
    let other = of_words("HTTP error: connection closed");
    assert_eq!(other.problem, "cannot be fetched: HTTP error: connection closed");
}
