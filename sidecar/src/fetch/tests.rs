//! Fetches from a server in a network of the tests' own, whose addresses are private ones that are allowed; names are the
//! tests' too. tests/serving has the same by the whole server.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::IpAddr,
    os::fd::AsFd as _,
    panic::resume_unwind,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use super::*;
use crate::{metrics::ModelMetrics, model::test_support::images};

/// The network's addresses, the last of which is not allowed.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.88.0.1"];
const LIMIT: u64 = 1000;
const LONGEST: [u8; 1001] = [0; 1001];

/// Runs a test in a network of its own, in which there is a server. It takes root.
fn run(test: impl AsyncFnOnce() + Send + 'static) {
    let within = move || {
        enter();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("0.0.0.0:80").await.unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream));
                }
            });
            test().await;
        });
    };
    if let Err(panic) = thread::spawn(within).join() {
        resume_unwind(panic);
    }
}

fn enter() {
    let add = ADDRESSES.map(|address| format!("ip address add dev lo {address}/32"));
    let script = format!("ip link set lo up && {} && echo ready && read _", add.join(" && "));
    let mut holder = Command::new("unshare");
    holder.args(["--net", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n", "this test must be run as root, and be allowed to make networks");
    let network = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

/// Answers one request.
async fn serve(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?;
    let (status, headers) = match path.split_once('?').unwrap_or((path, "")) {
        ("/to", location) => ("302 Found", format!("location: {location}\r\n")),
        ("/loop", _) => ("302 Found", "location: /loop\r\n".to_owned()),
        ("/404", _) => ("404 Not Found", String::new()),
        ("/500", _) => ("500 Internal Server Error", String::new()),
        ("/html", _) => ("200 OK", "content-type: text/html\r\n".to_owned()),
        ("/gzip", _) => ("200 OK", "content-encoding: gzip\r\n".to_owned()),
        ("/announced", _) => ("200 OK", format!("content-length: {}\r\n", LIMIT + 1)),
        _ => ("200 OK", "content-type: image/png\r\n".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    match path {
        "/endless" => loop {
            stream.write_all(&[0; 4096]).await.ok()?;
        },
        "/slow" => stream.read_u8().await.ok().map(drop),
        "/long" => stream.write_all(&LONGEST).await.ok(),
        "/longest" => stream.write_all(&LONGEST[1..]).await.ok(),
        _ => stream.write_all(b"a file").await.ok(),
    }
}

fn urls(timeout: Duration) -> ImageUrls {
    let hosts = ["*.test", "10.77.0.1", "10.88.0.1", "127.0.0.1"].map(str::to_owned);
    let allowed_cidrs = vec!["10.77.0.0/16".to_owned()];
    ImageUrls { allowed_hosts: hosts.to_vec(), allowed_cidrs, timeout }
}

fn input(urls: Option<ImageUrls>) -> ImageInput {
    ImageInput { size_limit: LIMIT, urls, ..images(1, 1) }
}

fn fetcher(timeout: Duration, lookup: Lookup) -> Fetcher {
    let gate = Gate::of((4, 2), 1 << 20);
    let metrics = ModelMetrics::detached().fetch;
    Fetcher::of(&input(Some(urls(timeout))), (gate, lookup), metrics).unwrap().unwrap()
}

/// A fetcher with much time, for which every name is the server's.
fn patient() -> Fetcher {
    fetcher(Duration::from_secs(60), Arc::new(|_| Ok(vec![ADDRESSES[0].parse().unwrap()])))
}

/// The file at a URL, or why there is none.
async fn file(fetcher: &Fetcher, url: &str) -> Result<Vec<u8>, (ErrorKind, String)> {
    let url = ImageUrl::parse(url, &fetcher.urls).expect("it is allowed");
    let turn = fetcher.turn(&url, Class::Waiting).await;
    let fetched = fetcher.fetch(&url, turn).await;
    fetched
        .map(|fetched| fetched.image.as_bytes().to_vec())
        .map_err(|error| (error.kind, error.message.clone()))
}

#[test]
fn answers_are_files_or_failures_of_their_kind() {
    run(async || {
        let fetcher = patient();
        assert_eq!(file(&fetcher, "http://a.test/a").await.unwrap(), b"a file");
        assert_eq!(file(&fetcher, "http://10.77.0.1/a").await.unwrap(), b"a file");
        let to = "http://a.test/to?//b.test/to?//c.test/a";
        assert_eq!(file(&fetcher, to).await.unwrap(), b"a file");
        assert_eq!(file(&fetcher, "http://a.test/longest").await.unwrap(), &LONGEST[1..]);
        for (path, kind, words) in [
            ("404", ErrorKind::UrlFailed, "404 Not Found"),
            ("500", ErrorKind::UrlUnavailable, "500 Internal"),
            ("loop", ErrorKind::UrlFailed, "more than 3 times"),
            ("html", ErrorKind::ImageUndecodable, "text/html"),
            ("gzip", ErrorKind::ImageUndecodable, "gzip"),
            ("announced", ErrorKind::ImageUndecodable, "1001 bytes"),
            ("long", ErrorKind::ImageUndecodable, "more bytes"),
            ("endless", ErrorKind::ImageUndecodable, "more bytes"),
            ("to?http://evil.example/", ErrorKind::UrlNotAllowed, "host or port"),
            ("to?http://10.88.0.1/", ErrorKind::UrlNotAllowed, "10.88.0.1, a private"),
            ("to?http://127.0.0.1/", ErrorKind::UrlNotAllowed, "127.0.0.1, which is never"),
        ] {
            let failed = file(&fetcher, &format!("http://a.test/{path}")).await.unwrap_err();
            assert!(failed.0 == kind && failed.1.contains(words), "{path}: {failed:?}");
            assert!(failed.1.starts_with("image_url: "), "{}", failed.1);
        }
        let counts = [Outcome::Fetched, Outcome::Failed, Outcome::NotAllowed, Outcome::Unavailable]
            .map(|outcome| fetcher.metrics.count(outcome));
        assert_eq!(counts, [4, 7, 3, 1]);
        // Two of the good one, four of the loop, and three that were refused.
        assert_eq!(fetcher.metrics.redirects.get(), 9);
    });
}

#[test]
fn every_address_is_judged_and_no_other_is_connected_to() {
    run(async || {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let lookup: Lookup = Arc::new(move |name| {
            let addresses: &[&str] = match (name, counted.fetch_add(1, Ordering::SeqCst)) {
                // The first time it is the server.
                ("rebound.test", 0) => &["10.77.0.1"],
                ("rebound.test", _) => &["127.0.0.1"],
                ("private.test", _) => &["10.88.0.1"],
                ("mixed.test", _) => &["10.77.0.1", "127.0.0.1"],
                ("none.test", _) => &[],
                _ => return Err(io::Error::other("no such name")),
            };
            Ok(addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect())
        });
        let fetcher = fetcher(Duration::from_secs(60), lookup);
        assert_eq!(file(&fetcher, "http://rebound.test/a").await.unwrap(), b"a file");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "what was judged is what was connected to");
        for (name, kind, words) in [
            ("rebound", ErrorKind::UrlNotAllowed, "127.0.0.1, which is never"),
            ("private", ErrorKind::UrlNotAllowed, "10.88.0.1, a private"),
            ("mixed", ErrorKind::UrlNotAllowed, "127.0.0.1, which is never"),
            ("none", ErrorKind::UrlUnavailable, "cannot be fetched"),
            ("missing", ErrorKind::UrlUnavailable, "no such name"),
        ] {
            let failed = file(&fetcher, &format!("http://{name}.test/a")).await.unwrap_err();
            assert!(failed.0 == kind && failed.1.contains(words), "{name}: {failed:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 6);
        let literal = file(&fetcher, "http://2130706433/a").await.unwrap_err();
        assert!(literal.1.contains("127.0.0.1, which is never"), "{literal:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 6, "an address is no name");
    });
}

#[test]
fn a_slow_server_is_not_waited_for_and_gives_its_turn_back() {
    run(async || {
        let of_server: Lookup = Arc::new(|_| Ok(vec![ADDRESSES[0].parse().unwrap()]));
        let fetcher = fetcher(Duration::from_millis(200), of_server);
        for _ in 0..3 {
            let slow = file(&fetcher, "http://a.test/slow").await.unwrap_err();
            assert_eq!(slow.0, ErrorKind::UrlUnavailable);
            assert!(slow.1.contains("was not fetched within 200ms"), "{}", slow.1);
        }
        assert_eq!(fetcher.metrics.count(Outcome::TimedOut), 3);
        let url = ImageUrl::parse("http://a.test/", &fetcher.urls).unwrap();
        let turns =
            [fetcher.turn(&url, Class::Waiting).await, fetcher.turn(&url, Class::Waiting).await];
        drop(turns);
    });
}

#[test]
fn a_model_that_takes_no_urls_has_nothing_to_fetch_with() {
    let metrics = ModelMetrics::detached().fetch;
    let network = (Gate::of_process(), system_lookup());
    assert!(Fetcher::of(&input(None), network, metrics).unwrap().is_none());
}
