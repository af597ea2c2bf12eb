//! Images by their URL: servers and names in a network of the test's own, with private addresses inside of the range that
//! the model allows, so that what is said of loopback and of metadata stands as it is in a cluster.

mod caching;
mod forged;
mod servers;

use std::io::Cursor;

use ::image::{ImageFormat, Rgb, RgbImage};
use embark_sidecar::pb::client::{EmbedRequest, Item, ItemResult, item::Input};
use embark_tests::{
    Manifest, Sidecar,
    network::{self, Answer, Names, PRIVATE, PRIVATE_V6, PUBLIC, Web},
    refusal,
    sidecar::{Options, until},
};
use serde_json::json;
use tonic::{Code, Status};

/// Pixels across and down, as the model has them.
const SIDE: u32 = 8;
/// The most bytes of a file.
const MOST_BYTES: usize = 4096;
/// What a model allows that allows a lot: none of the addresses makes a difference.
const HOSTS: [&str; 9] = [
    "*.test",
    "ports.test:8080",
    "localhost",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    PRIVATE,
    "10.88.0.1",
    "192.168.7.7",
];
/// Above what anything takes that is expected to be answered.
const LONG: &str = "60s";
/// Enough for what is expected to take too long.
const SHORT: &str = "500ms";

/// A sidecar with a model of images, the server that they are on, and the names of that server.
struct World {
    sidecar: Sidecar,
    web: Web,
    names: Names,
    _folder: tempfile::TempDir,
}

// === impl World ===

impl World {
    /// With this time for a fetch.
    async fn new(timeout: &str) -> Self {
        Self::with(timeout, |manifest| manifest).await
    }

    async fn with(timeout: &str, change: impl FnOnce(Manifest) -> Manifest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::start().await;
        names.set("good.test", &[PRIVATE]);
        let web = Web::start(answer).await;
        let sidecar = Sidecar::start(&options(folder.path(), timeout, change)).await;
        World { sidecar, web, names, _folder: folder }
    }

    /// Embeds the image at a URL.
    async fn ask(&self, url: &str) -> Result<ItemResult, Status> {
        self.call(request(&[url])).await
    }

    async fn call(&self, request: EmbedRequest) -> Result<ItemResult, Status> {
        let reply = self.sidecar.call(request).await?;
        Ok(reply.results.into_iter().next().expect("a result"))
    }

    /// A URL that is refused, and what is said of it.
    async fn refused(&self, url: &str, code: Code, reason: &str) -> String {
        let refused = self.ask(url).await.expect_err(url);
        assert!(refused.message().len() < 1_000, "{refused}");
        let metadata = refusal::of_field(&refused, code, reason, "items[0].image_url");
        metadata["allowed"].clone()
    }
}

// === free functions ===

/// How a sidecar is started with a model of images that are fetched.
fn options(
    folder: &std::path::Path,
    timeout: &str,
    change: impl FnOnce(Manifest) -> Manifest,
) -> Options {
    let ranges = ["10.77.0.0/16", "fd77::/16", "fd00:ec2::/32", "100.64.0.0/10", "127.0.0.0/8"];
    let urls = json!({"allowedHosts": HOSTS, "allowedCIDRs": ranges, "timeout": timeout});
    let manifest = Manifest::of_colours("colours", folder, SIDE)
        .with("/spec/input/image/sizeLimit", MOST_BYTES)
        .with("/spec/input/image/urls", urls);
    let mut options = Options::new(folder, &change(manifest));
    options.wrapper = network::wrapper(folder);
    options
}

fn request(urls: &[&str]) -> EmbedRequest {
    let item = |url: &&str| Item { input: Some(Input::ImageUrl((*url).to_owned())) };
    EmbedRequest { items: urls.iter().map(item).collect(), ..EmbedRequest::default() }
}

/// What the server answers.
fn answer(path: &str) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let png = png([204, 102, 51]);
    match path {
        "/to" => Answer::Bytes(reply("302 Found", &format!("location: {query}\r\n"), b"moved")),
        "/loop" => Answer::Bytes(reply("302 Found", "location: /loop\r\n", b"")),
        "/held" => Answer::Held(reply("200 OK", "content-type: image/png\r\n", &png)),
        _ => servers::answer(path, &png),
    }
}

/// An answer with its length.
fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A file of one colour.
fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(SIDE, SIDE, Rgb(colour));
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// That a result is the vector of [`png`]'s colour.
fn is_good(result: &ItemResult) {
    assert!(result.error.is_none() && result.vector.len() == 3, "{result:?}");
    for (value, expected) in result.vector.iter().zip([0.8, 0.4, 0.2]) {
        assert!((value - expected).abs() < 0.01, "{:?}", result.vector);
    }
}
