//! Real connections, and who gets an answer.

use axum::routing::{get, post};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

/// What nobody on a working machine waits for.
const LONG: Duration = Duration::from_secs(45);
const BOUNDS: Bounds = Bounds { connections: 4, body_bytes: 1000, all_bodies_bytes: 1000 };

/// A port that is served.
struct Served {
    address: SocketAddr,
    connector: TlsConnector,
    /// Lets `/slow` answer.
    release: Arc<Notify>,
    /// As often as that was asked for.
    asked: Arc<Semaphore>,
    _serving: JoinHandle<()>,
}

type Stream = TlsStream<TcpStream>;

impl Served {
    async fn start(bounds: Bounds) -> Served {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let release = Arc::new(Notify::new());
        let released = Arc::clone(&release);
        let asked = Arc::new(Semaphore::new(0));
        let asks = Arc::clone(&asked);
        let slow = move || {
            let (released, asks) = (Arc::clone(&released), Arc::clone(&asks));
            async move {
                asks.add_permits(1);
                released.notified().await;
            }
        };
        let routes = Router::new()
            .route("/", post(async |body: Bytes| body.len().to_string()))
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Some(TlsAcceptor::from(Arc::new(server.unwrap())));
        let port = Port { listener, tls, routes, bounds };
        let serving = tokio::spawn(port.serve(std::future::pending()));
        let connector = TlsConnector::from(Arc::new(client));
        Served { address, connector, release, asked, _serving: serving }
    }

    async fn connect(&self) -> Stream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.connector.connect(name, stream).await.unwrap()
    }

    /// A connection that has sent the head of a request and so many bytes of its body.
    async fn begin(&self, sent: usize, length: usize) -> Stream {
        let mut stream = self.connect().await;
        let head =
            format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; sent]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn ask_slowly(&self) -> Stream {
        let mut stream = self.connect().await;
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        // From then on it is owed an answer.
        self.asked.acquire().await.unwrap().forget();
        stream
    }
}

/// The beginning of what is answered; nothing: it was closed.
async fn answer(stream: &mut Stream) -> String {
    let mut read = vec![0; 1024];
    let count = timeout(LONG, stream.read(&mut read)).await.expect("it answers, or is closed");
    String::from_utf8_lossy(&read[..count.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_the_one_that_rested_longest() {
    let served = Served::start(BOUNDS).await;
    let mut resting = Vec::new();
    for _ in 0..3 * BOUNDS.connections {
        resting.push(served.connect().await);
    }
    let mut one = served.begin(3, 3).await;
    assert!(answer(&mut one).await.starts_with("HTTP/1.1 200"));
    assert_eq!(answer(&mut resting[0]).await, "");
    // One that came late is still there, and may ask.
    let last = resting.last_mut().unwrap();
    last.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert!(answer(last).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn bodies_that_never_come_to_an_end_hold_nobody_up() {
    let served = Served::start(BOUNDS).await;
    let mut trickling = Vec::new();
    for _ in 0..5 * BOUNDS.connections {
        trickling.push(served.begin(1, 100).await);
        let mut one = served.begin(3, 3).await;
        assert!(answer(&mut one).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn whoever_is_owed_an_answer_makes_room_for_nobody() {
    let served = Served::start(BOUNDS).await;
    let mut waiting = Vec::new();
    for _ in 0..BOUNDS.connections {
        waiting.push(served.ask_slowly().await);
    }
    for _ in 0..3 {
        // There is room for one more, which is not kept.
        let mut one = served.begin(3, 3).await;
        assert!(answer(&mut one).await.starts_with("HTTP/1.1 200"));
    }
    // Whoever had asked by then gets the answer.
    let released = tokio::spawn(async move {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        loop {
            often.tick().await;
            served.release.notify_waiters();
        }
    });
    for stream in &mut waiting {
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
    released.abort();
}

#[tokio::test]
async fn room_for_a_body_is_made_by_whoever_has_not_sent_all_of_its_own() {
    let served = Served::start(BOUNDS).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(served.begin(400, 900).await);
    }
    let mut one = served.begin(900, 900).await;
    assert!(answer(&mut one).await.starts_with("HTTP/1.1 200"));
    assert_eq!(answer(&mut slow[0]).await, "");
    let mut more = served.begin(0, 1001).await;
    more.write_all(&[b'x'; 1001]).await.unwrap();
    assert!(answer(&mut more).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn whoever_asks_nothing_is_gone_long_before_one_that_rests() {
    let served = Served::start(BOUNDS).await;
    let (mut silent, mut half) = (served.connect().await, served.connect().await);
    half.write_all(b"POST / HTTP/1.1\r\nhost:").await.unwrap();
    let mut asked = served.begin(1, 1).await;
    assert!(answer(&mut asked).await.starts_with("HTTP/1.1 200"));
    assert_eq!(answer(&mut silent).await, "");
    assert_eq!(answer(&mut half).await, "");
    // It has a minute between two questions.
    asked
        .write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert!(answer(&mut asked).await.starts_with("HTTP/1.1 200"));
}
