use std::{convert::Infallible, net::SocketAddr, sync::atomic::AtomicUsize, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;

mod remote;

use super::*;
use crate::model::test_support::{TINY_MODEL, artifact, builtin};

const FIELD: &str = "spec.model.source";

/// What the test server answers, by how many requests came before.
type Answer = fn(usize) -> Response;

/// A server on loopback that counts its requests.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let answer = move |State(requests): State<Arc<AtomicUsize>>| async move {
            answer(requests.fetch_add(1, Ordering::SeqCst))
        };
        let router = Router::new().fallback(answer).with_state(requests.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Server { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/model.onnx", self.address)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Some bytes that no server would answer by chance, more than one chunk of them.
fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn settings() -> FetchSettings {
    FetchSettings {
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_millis(300),
        tries: 3,
        backoff: Duration::from_millis(1),
        longest_backoff: Duration::from_millis(2),
        proxy: false,
    }
}

fn store(folder: &Path) -> ArtifactStore {
    ArtifactStore::with(folder, settings(), Environment::default())
}

async fn fetch(store: &ArtifactStore, artifact: &Artifact) -> Result<Bytes, FetchError> {
    fetch_up_to(store, artifact, 1 << 30).await
}

async fn fetch_up_to(
    store: &ArtifactStore,
    artifact: &Artifact,
    size_limit: u64,
) -> Result<Bytes, FetchError> {
    let base = Path::new("/nowhere");
    store.fetch(&Request { artifact, field: FIELD, size_limit, base, progress: &|_| {} }).await
}

fn http(server: &Server) -> Artifact {
    artifact(Location::Http { url: server.url() }, &content())
}

/// What the folder holds, by path from it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The sentence of a fetch that fails, after which nothing is kept.
async fn refused(answer: Answer) -> (String, usize) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(answer).await;
    let error = fetch(&store(folder.path()), &http(&server)).await.unwrap_err();
    assert_eq!(files(folder.path()), Vec::<String>::new());
    (error.to_string().replace(&server.address.to_string(), "HOST"), server.requests())
}

fn whole() -> Response {
    content().into_response()
}

#[tokio::test]
async fn a_built_in_file_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fetch(&store(folder.path()), &builtin("model.onnx", TINY_MODEL)).await.unwrap();
    assert_eq!(bytes, TINY_MODEL);
}

#[tokio::test]
async fn a_built_in_file_is_verified_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&store(folder.path()), &builtin("model.onnx", b"x")).await.unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.starts_with("spec.model.source.sha256: is 2d711642b726b044"), "{sentence}");
    assert!(sentence.contains("but the file's sha256 is e5e89d887c74dccf"), "{sentence}");
}

#[tokio::test]
async fn an_unknown_built_in_file_lists_those_that_exist() {
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&store(folder.path()), &builtin("other", b"")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.model.source.uri: builtin://tiny-static-minilm/other does not exist; built in: \
         builtin://tiny-static-minilm/model.onnx, builtin://tiny-static-minilm/tokenizer.json"
    );
}

#[tokio::test]
async fn a_file_is_read_relative_to_the_manifest_or_absolute() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.onnx"), "content").unwrap();
    let store = store(&folder.path().join("store"));
    let absolute = folder.path().join("a.onnx").to_str().unwrap().to_owned();
    for path in ["a.onnx".to_owned(), "./a.onnx".to_owned(), absolute] {
        let artifact = artifact(Location::File { path }, b"content");
        let base = folder.path();
        let progress = &|_| {};
        let request = Request { artifact: &artifact, field: FIELD, size_limit: 7, base, progress };
        assert_eq!(store.fetch(&request).await.unwrap(), "content");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("store"));
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let long = folder.path().join("long");
    std::fs::write(&long, "12345678").unwrap();
    let cases = [
        (folder.path().join("absent"), "does not exist"),
        (folder.path().to_owned(), "is a folder; name the file in it"),
        (socket, "is not a regular file"),
        (long, "is larger than 7 bytes, which is all that spec.model.sizeLimit allows"),
    ];
    for (path, problem) in cases {
        let path = path.to_str().unwrap().to_owned();
        let artifact = artifact(Location::File { path }, b"");
        let sentence = fetch_up_to(&store, &artifact, 7).await.unwrap_err().to_string();
        assert!(sentence.starts_with("spec.model.source.uri: "), "{sentence}");
        assert!(sentence.ends_with(problem), "{sentence}");
    }
}

#[tokio::test]
async fn a_fetched_file_is_kept_and_not_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| whole()).await;
    for _ in 0..2 {
        let store = store(folder.path());
        assert_eq!(fetch(&store, &http(&server)).await.unwrap(), content());
        assert_eq!(fetch(&store, &http(&server)).await.unwrap(), content());
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(files(folder.path()), [format!("sha256/{}", http(&server).sha256)]);
}

#[tokio::test]
async fn progress_is_told_while_a_file_comes_in() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| whole()).await;
    let seen = Mutex::new(Vec::new());
    let progress = |progress| seen.lock().push(progress);
    let (artifact, base) = (http(&server), Path::new("/nowhere"));
    let size_limit = 1 << 30;
    let request =
        Request { artifact: &artifact, field: FIELD, size_limit, base, progress: &progress };
    store(folder.path()).fetch(&request).await.unwrap();
    let total = Some(1_200_000);
    let seen = seen.into_inner();
    assert_eq!(seen.first(), Some(&Progress::Fetching { bytes: 0, total: None }));
    assert!(seen.contains(&Progress::Fetching { bytes: 0, total }));
    assert!(seen.contains(&Progress::Fetching { bytes: 1_200_000, total }));
    assert_eq!(seen.last(), Some(&Progress::Verifying));
}

#[tokio::test]
async fn two_models_that_want_one_file_fetch_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| whole()).await;
    let (store, artifact) = (store(folder.path()), http(&server));
    let (a, b) = tokio::join!(fetch(&store, &artifact), fetch(&store, &artifact));
    assert_eq!((a.unwrap(), b.unwrap()), (content().into(), content().into()));
    assert_eq!(server.requests(), 1);
    assert!(store.flights.lock().is_empty());
}

#[tokio::test]
async fn a_damaged_kept_file_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| whole()).await;
    let (store, artifact) = (store(folder.path()), http(&server));
    fetch(&store, &artifact).await.unwrap();
    let kept = folder.path().join("sha256").join(artifact.sha256.to_string());
    for damaged in [&b"short"[..], &[0; 1_200_000]] {
        std::fs::write(&kept, damaged).unwrap();
        assert_eq!(fetch(&store, &artifact).await.unwrap(), content());
    }
    assert_eq!(server.requests(), 3);
    assert_eq!(std::fs::read(&kept).unwrap(), content());
}

#[tokio::test]
async fn another_file_than_the_digest_names_is_refused_and_not_kept() {
    let (sentence, requests) = refused(|_| "another file".into_response()).await;
    assert!(sentence.starts_with("spec.model.source.sha256: is "), "{sentence}");
    assert!(sentence.contains(", but the file's sha256 is "), "{sentence}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_file_above_the_limit_is_refused_by_its_length_or_on_the_way() {
    fn endless() -> Response {
        let chunk = || Ok::<_, Infallible>(Bytes::from(vec![0; 10_000]));
        Body::from_stream(futures_util::stream::repeat_with(chunk)).into_response()
    }
    for answer in [(|_| whole()) as Answer, |_| endless()] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(answer).await;
        let store = store(folder.path());
        let error = fetch_up_to(&store, &http(&server), 100_000).await.unwrap_err();
        let sentence =
            "the file is larger than 100000 bytes, which is all that spec.model.sizeLimit allows";
        assert_eq!(error.to_string(), format!("spec.model.source.uri: {sentence}"));
        assert_eq!((server.requests(), files(folder.path())), (1, Vec::new()));
    }
}

#[tokio::test]
async fn a_refusal_of_the_server_is_final() {
    let (sentence, requests) = refused(|_| StatusCode::NOT_FOUND.into_response()).await;
    let answered = "http://HOST/model.onnx answered 404 Not Found";
    assert_eq!(sentence, format!("spec.model.source.uri: {answered}"));
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|before| match before {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        1 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => whole(),
    });
    let server = server.await;
    assert_eq!(fetch(&store(folder.path()), &http(&server)).await.unwrap(), content());
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_lasting_failure_is_tried_so_often_and_no_more() {
    let (sentence, requests) = refused(|_| StatusCode::BAD_GATEWAY.into_response()).await;
    let answered = "http://HOST/model.onnx answered 502 Bad Gateway (3 tries)";
    assert_eq!(sentence, format!("spec.model.source.uri: {answered}"));
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|before| {
        if before > 0 {
            return whole();
        }
        let broken = [Ok(Bytes::from(content())), Err(io::Error::other("gone"))];
        Body::from_stream(futures_util::stream::iter(broken)).into_response()
    });
    let server = server.await;
    assert_eq!(fetch(&store(folder.path()), &http(&server)).await.unwrap(), content());
    assert_eq!((server.requests(), files(folder.path()).len()), (2, 1));
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let (sentence, requests) = refused(|_| {
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from("first"))]);
        Body::from_stream(first.chain(futures_util::stream::pending())).into_response()
    })
    .await;
    let problem = "http://HOST/model.onnx did not answer in time (3 tries)";
    assert_eq!(sentence, format!("spec.model.source.uri: {problem}"));
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_passing_failure() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let location = Location::Http { url: format!("http://user:secret@{address}/a?key=secret") };
    let error = fetch(&store(folder.path()), &artifact(location, b"")).await.unwrap_err();
    let sentence = error.to_string();
    let start = format!("spec.model.source.uri: http://{address}/a cannot be fetched: ");
    assert!(sentence.starts_with(&start) && sentence.ends_with("(3 tries)"), "{sentence}");
    assert!(error.is_transient() && !sentence.contains("secret"), "{sentence}");
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    fn redirect() -> Response {
        (StatusCode::FOUND, [(header::LOCATION, "/model.onnx")]).into_response()
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|before| if before < 5 { redirect() } else { whole() }).await;
    assert_eq!(fetch(&store(folder.path()), &http(&server)).await.unwrap(), content());
    let (sentence, requests) = refused(|_| redirect()).await;
    assert!(sentence.contains("more than 5 redirects"), "{sentence}");
    assert_eq!(requests, 6);
}

#[tokio::test]
async fn what_an_earlier_run_left_unfinished_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    drop(store(folder.path()));
    std::fs::write(folder.path().join("unfinished/1-0"), "half").unwrap();
    drop(store(folder.path()));
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_fetch_that_is_given_up_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| {
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from("first"))]);
        Body::from_stream(first.chain(futures_util::stream::pending())).into_response()
    });
    let (server, store) = (server.await, store(folder.path()));
    let artifact = http(&server);
    let (came, coming) = tokio::sync::oneshot::channel();
    let came = Mutex::new(Some(came));
    let progress = |_| {
        if let Some(came) = came.lock().take() {
            came.send(()).unwrap();
        }
    };
    let base = Path::new("/nowhere");
    let size_limit = 1 << 30;
    let request =
        Request { artifact: &artifact, field: FIELD, size_limit, base, progress: &progress };
    tokio::select! {
        result = store.fetch(&request) => panic!("the fetch ended: {result:?}"),
        begun = coming => begun.unwrap(),
    }
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn without_a_folder_to_write_to_it_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    // A file stands where the folder should be, so that not even root can write there.
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let server = Server::start(|_| whole()).await;
    let store = store(&taken);
    for _ in 0..2 {
        assert_eq!(fetch(&store, &http(&server)).await.unwrap(), content());
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_folder_that_goes_away_does_not_stop_a_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| whole()).await;
    let store = store(folder.path());
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(fetch(&store, &http(&server)).await.unwrap(), content());
}
