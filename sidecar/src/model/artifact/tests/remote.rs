//! Sources over HTTP as they are met: they break off, need credentials, have an authority of their own.

use axum::http::{HeaderMap, HeaderValue};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// How a file server behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// Bytes of an answer after which the connection is closed; 0: none is.
    breaks_after: usize,
    /// Whether parts are given.
    ranges: bool,
    /// Whether the second answer and those after it are of another file, whose ETag is another one too.
    changes: bool,
    /// Whether there is an ETag.
    tag: bool,
    /// How often the content is repeated.
    repeats: usize,
}

/// What was asked of a server: paths and headers.
type Asked = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A file server on loopback.
struct Files {
    address: SocketAddr,
    asked: Asked,
    content: Vec<u8>,
}

impl Files {
    async fn start(manners: Manners) -> Self {
        let asked = Asked::default();
        let seen = asked.clone();
        let answer = move |request: axum::extract::Request| async move {
            let (parts, _) = request.into_parts();
            let before = {
                let mut seen = seen.lock();
                seen.push((parts.uri.to_string(), parts.headers.clone()));
                seen.len() - 1
            };
            file(manners, before, &parts.headers)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Files { address, asked, content: content().repeat(manners.repeats + 1) }
    }

    fn artifact(&self) -> Artifact {
        let url = format!("http://{}/model.onnx", self.address);
        artifact(Location::Http { url }, &self.content)
    }

    /// The values of a header, request by request.
    fn headers(&self, name: &str) -> Vec<Option<String>> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        self.asked.lock().iter().map(|(_, headers)| headers.get(name).map(text)).collect()
    }
}

/// An answer to a request for the file, or for a part of it.
fn file(manners: Manners, before: usize, headers: &HeaderMap) -> Response {
    let mut bytes = content().repeat(manners.repeats + 1);
    let mut tag = "\"first\"";
    if manners.changes && before == 0 {
        bytes[0] ^= 1;
        tag = "\"older\"";
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap());
    let is_same = text(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let from = text(header::RANGE).filter(|_| manners.ranges && is_same).map(|range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let total = bytes.len();
    let mut answer = Response::builder();
    if manners.tag {
        answer = answer.header(header::ETAG, tag);
    }
    let begins = from.unwrap_or(0);
    if begins >= total {
        let answer = answer.status(StatusCode::RANGE_NOT_SATISFIABLE);
        let range = format!("bytes */{total}");
        return answer.header(header::CONTENT_RANGE, range).body(Body::empty()).unwrap();
    }
    if from.is_some() {
        answer = answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {begins}-{}/{total}", total - 1));
    }
    let part = Bytes::from(bytes.split_off(begins));
    let answer = answer.header(header::CONTENT_LENGTH, part.len());
    if manners.breaks_after == 0 || part.len() <= manners.breaks_after {
        return answer.body(Body::from(part)).unwrap();
    }
    // The pieces are flushed one by one, so that they arrive before the end does.
    let piece = part.slice(..manners.breaks_after);
    let broken = futures_util::stream::iter([Ok(piece), Err(io::Error::other("gone"))]);
    let slowly = broken.then(|piece| async move {
        tokio::task::yield_now().await;
        piece
    });
    answer.body(Body::from_stream(slowly)).unwrap()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

/// A fetch by hand, in this environment.
async fn fetch_in(variables: &[(&str, &str)], artifact: &Artifact) -> Result<Bytes, FetchError> {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::with(folder.path(), settings(), environment(variables));
    fetch(&store, artifact).await
}

/// A fetch in a pod, whose model's folder is `base`.
async fn fetch_at(base: &Path, artifact: &Artifact) -> Result<Bytes, FetchError> {
    let folder = tempfile::tempdir().unwrap();
    let (size_limit, progress) = (1 << 30, &|_| {});
    let request = Request { artifact, field: FIELD, size_limit, base, progress };
    store(folder.path()).fetch(&request).await
}

#[tokio::test]
async fn what_broke_off_goes_on_where_it_ended() {
    // More breaks than there are tries: but each piece is a step ahead.
    let (breaks_after, repeats) = (3 << 19, 5);
    let manners = Manners { breaks_after, ranges: true, tag: true, repeats, ..Manners::default() };
    let server = Files::start(manners).await;
    assert_eq!(fetch_in(&[], &server.artifact()).await.unwrap(), server.content);
    let ranges = server.headers("range");
    assert!(ranges.len() > 3 && ranges[0].is_none(), "{ranges:?}");
    assert!(ranges[1].as_ref().is_some_and(|range| range != "bytes=0-"), "{ranges:?}");
    assert_eq!(server.headers("if-range")[1].as_deref(), Some("\"first\""));
}

#[tokio::test]
async fn a_server_that_gives_no_parts_is_asked_for_the_whole_again() {
    let manners = Manners { breaks_after: 1 << 20, ..Manners::default() };
    let server = Files::start(manners).await;
    let error = fetch_in(&[], &server.artifact()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("tries)"), "{error}");
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_from_its_beginning() {
    for tag in [true, false] {
        let manners =
            Manners { breaks_after: 700_000, ranges: true, changes: true, tag, repeats: 0 };
        let server = Files::start(manners).await;
        assert_eq!(fetch_in(&[], &server.artifact()).await.unwrap(), content(), "{tag}");
    }
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|before| match before {
        0 => {
            let manners = Manners { breaks_after: 1 << 20, ..Manners::default() };
            file(manners, 0, &HeaderMap::new())
        }
        1 => {
            let range = [(header::CONTENT_RANGE, "bytes 7-9/10")];
            (StatusCode::PARTIAL_CONTENT, range, "abc").into_response()
        }
        _ => whole(),
    });
    let server = server.await;
    assert_eq!(fetch(&store(folder.path()), &http(&server)).await.unwrap(), content());
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_partial_file_is_never_kept() {
    let folder = tempfile::tempdir().unwrap();
    let manners = Manners { breaks_after: 1 << 20, ..Manners::default() };
    let server = Files::start(manners).await;
    fetch(&store(folder.path()), &server.artifact()).await.unwrap_err();
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn credentials_are_sent_when_the_spec_names_a_secret_and_only_then() {
    let server = Files::start(Manners::default()).await;
    let token = [("EMBARK_HTTP_TOKEN", "t0ken")];
    let user = [("EMBARK_HTTP_USERNAME", "user"), ("EMBARK_HTTP_PASSWORD", "word")];
    let with_secret = Artifact { has_secret: true, ..server.artifact() };
    fetch_in(&token, &with_secret).await.unwrap();
    fetch_in(&user, &with_secret).await.unwrap();
    fetch_in(&token, &server.artifact()).await.unwrap();
    let expected = [Some("Bearer t0ken".to_owned()), Some("Basic dXNlcjp3b3Jk".to_owned()), None];
    assert_eq!(server.headers("authorization"), expected);
}

#[tokio::test]
async fn a_secret_that_lacks_what_is_needed_is_told_without_a_request() {
    let server = Files::start(Manners::default()).await;
    let with_secret = Artifact { has_secret: true, ..server.artifact() };
    let half = [("EMBARK_HTTP_USERNAME", "user")];
    let error = fetch_in(&half, &with_secret).await.unwrap_err();
    let needed = "set EMBARK_HTTP_TOKEN, or EMBARK_HTTP_USERNAME and EMBARK_HTTP_PASSWORD";
    let sentence = error.to_string();
    assert!(sentence.starts_with("spec.model.source.secretRef: names a Secret"), "{sentence}");
    assert!(sentence.ends_with(needed), "{sentence}");
    assert!(!error.is_transient());
    assert!(server.asked.lock().is_empty());
}

#[tokio::test]
async fn a_mounted_secret_is_used_and_in_no_sentence() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("contract")).unwrap();
    std::fs::create_dir_all(base.path().join("secrets/model")).unwrap();
    std::fs::write(base.path().join("secrets/model/token"), "hush\n").unwrap();
    let server = Server::start(|_| StatusCode::FORBIDDEN.into_response()).await;
    let with_secret = Artifact { has_secret: true, ..http(&server) };
    let error = fetch_at(base.path(), &with_secret).await.unwrap_err();
    let sentence = format!("{error} {error:?}");
    assert!(sentence.contains("answered 403 Forbidden"), "{sentence}");
    assert!(!sentence.contains("hush"), "{sentence}");

    let server = Files::start(Manners::default()).await;
    let with_secret = Artifact { has_secret: true, ..server.artifact() };
    fetch_at(base.path(), &with_secret).await.unwrap();
    assert_eq!(server.headers("authorization"), [Some("Bearer hush".to_owned())]);
}

#[tokio::test]
async fn credentials_are_not_sent_to_where_a_redirect_leads() {
    let target = Files::start(Manners::default()).await;
    let to = format!("http://{}/elsewhere", target.address);
    let redirect = move || {
        let to = to.clone();
        async move { (StatusCode::FOUND, [(header::LOCATION, to)]) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/model.onnx", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(redirect)).await });
    let asks = Artifact { has_secret: true, ..artifact(Location::Http { url }, &content()) };
    fetch_in(&[("EMBARK_HTTP_TOKEN", "t0ken")], &asks).await.unwrap();
    assert_eq!(target.headers("authorization"), [None]);
}

#[tokio::test]
async fn a_file_of_a_hub_is_fetched_by_its_commit() {
    let server = Files::start(Manners::default()).await;
    let endpoint = format!("http://{}/mirror/", server.address);
    let revision = "0123456789012345678901234567890123456789";
    let location = Location::Hf {
        repository: "org/repo".to_owned(),
        revision: revision.to_owned(),
        file: "onnx/model.onnx".to_owned(),
    };
    let file = artifact(location, &content());
    fetch_in(&[("HF_ENDPOINT", endpoint.as_str())], &file).await.unwrap();
    let with_token = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", "t0ken")];
    fetch_in(&with_token, &file).await.unwrap();
    let asks = Artifact { has_secret: true, ..file.clone() };
    fetch_in(&with_token, &asks).await.unwrap();
    let bearer = Some("Bearer t0ken".to_owned());
    assert_eq!(server.headers("authorization"), [None, bearer.clone(), bearer]);
    let paths: Vec<String> = server.asked.lock().iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(paths, vec![format!("/mirror/org/repo/resolve/{revision}/onnx/model.onnx"); 3]);

    let error =
        fetch_in(&[("HF_ENDPOINT", endpoint.as_str())], &asks).await.unwrap_err().to_string();
    assert!(error.ends_with("the environment stands for it: set HF_TOKEN"), "{error}");
    for endpoint in ["hub", "file:///hub", "http://", "https://hub?a=b"] {
        let error = fetch_in(&[("HF_ENDPOINT", endpoint)], &file).await.unwrap_err().to_string();
        assert!(error.ends_with("HF_ENDPOINT is not an http:// or https:// URL"), "{error}");
    }
}

#[tokio::test]
async fn a_file_of_a_volume_is_read_where_it_is_mounted() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("volumes/claim/models")).unwrap();
    std::fs::write(base.path().join("volumes/claim/models/a.onnx"), "content").unwrap();
    let at = |path: &str| Location::Pvc { claim: "claim".to_owned(), path: path.to_owned() };
    let file = artifact(at("models/a.onnx"), b"content");
    assert_eq!(fetch_at(base.path(), &file).await.unwrap(), "content");
    let other = fetch_at(base.path(), &artifact(at("models/a.onnx"), b"x")).await.unwrap_err();
    assert!(other.to_string().starts_with("spec.model.source.sha256: is "), "{other}");
    let absent = fetch_at(base.path(), &artifact(at("models/b.onnx"), b"")).await.unwrap_err();
    assert!(absent.to_string().ends_with("does not exist"), "{absent}");
}

#[tokio::test]
async fn a_server_with_an_authority_of_its_own_is_trusted_by_its_bundle_alone() {
    install_tls_provider();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let url = serve_encrypted(config).await;
    let file = artifact(Location::Http { url }, &content());
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("contract")).unwrap();
    let unknown = fetch_at(base.path(), &file).await.unwrap_err().to_string();
    assert!(unknown.contains("cannot be fetched") && unknown.contains("ertificate"), "{unknown}");

    let bundle = base.path().join("ca/model");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("ca.crt"), cert.pem()).unwrap();
    let asks = Artifact { has_ca_bundle: true, ..file };
    assert_eq!(fetch_at(base.path(), &asks).await.unwrap(), content());
    std::fs::write(bundle.join("ca.crt"), "no certificate").unwrap();
    let wrong = fetch_at(base.path(), &asks).await.unwrap_err().to_string();
    assert_eq!(wrong, "spec.model.source.caBundleRef: the CA bundle holds no certificate in PEM");
}

/// The file at an https URL, over and over.
async fn serve_encrypted(config: rustls::ServerConfig) -> String {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/model.onnx", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = content();
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}
