//! Servers that answer badly, slowly or without end: a row a case.

use super::*;

/// Paths whose answer is no image, for good: what is said of each.
const NO_IMAGES: [(&str, &str, &str); 17] = [
    ("/html", "IMAGE_UNDECODABLE", "is of type text/html"),
    ("/text.png", "IMAGE_UNDECODABLE", "is of type text/plain"),
    ("/svg", "IMAGE_UNDECODABLE", "is an SVG"),
    ("/svg-as-bytes", "IMAGE_UNDECODABLE", "a PNG, JPEG, WebP or GIF"),
    ("/html-as-png", "IMAGE_UNDECODABLE", "a PNG, JPEG, WebP or GIF"),
    ("/truncated.png", "IMAGE_UNDECODABLE", "a PNG, JPEG, WebP or GIF"),
    ("/empty", "IMAGE_UNDECODABLE", "has 0 bytes; 1 to 4096"),
    ("/announced", "IMAGE_UNDECODABLE", "has 4097 bytes; 1 to 4096"),
    ("/announced-more", "IMAGE_UNDECODABLE", "has 1099511627776 bytes; 1 to 4096"),
    ("/chunked", "IMAGE_UNDECODABLE", "has more bytes; 1 to 4096"),
    ("/endless", "IMAGE_UNDECODABLE", "has more bytes; 1 to 4096"),
    ("/endless-chunks", "IMAGE_UNDECODABLE", "has more bytes; 1 to 4096"),
    ("/gzip", "IMAGE_UNDECODABLE", "an encoding (gzip)"),
    ("/404", "URL_FAILED", "404 Not Found"),
    ("/410", "URL_FAILED", "410 Gone"),
    ("/loop", "URL_FAILED", "more than 3 times"),
    ("/nowhere", "URL_FAILED", "to nowhere"),
];

/// Paths whose answer may be another one the next time.
const MAY_PASS: [(&str, &str); 7] = [
    ("/500", "500 Internal Server Error"),
    ("/503", "503 Service Unavailable"),
    ("/429", "429 Too Many Requests"),
    ("/short", "cannot be fetched"),
    ("/no-http", "cannot be fetched"),
    ("/many-headers", "cannot be fetched"),
    ("/closed", "cannot be fetched"),
];

/// What the server answers, of paths that are about an answer.
pub(super) fn answer(path: &str, png: &[u8]) -> Answer {
    let typed = |kind: &str, body: &[u8]| {
        Answer::Bytes(reply("200 OK", &format!("content-type: {kind}\r\n"), body))
    };
    let status = |status: &str| Answer::Bytes(reply(status, "", b"<html>"));
    let head = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>";
    match path {
        "/html" => typed("text/html; charset=utf-8", b"<html>"),
        "/text.png" => typed("text/plain", png),
        "/svg" => typed("image/svg+xml", svg),
        "/svg-as-bytes" => typed("application/octet-stream", svg),
        "/html-as-png" => typed("image/png", b"<!doctype html><html></html>"),
        "/truncated.png" => typed("image/png", &png[..png.len() - 20]),
        "/bytes" => typed("application/octet-stream", png),
        "/bytes-of-s3" => typed("binary/octet-stream", png),
        "/typeless" => Answer::Bytes(reply("200 OK", "", png)),
        "/upper" => typed("IMAGE/PNG; a=b", png),
        "/last.png" => Answer::Last(reply("200 OK", "connection: close\r\n", png)),
        "/until-the-end.png" => {
            Answer::Last([head("connection: close\r\n"), png.to_vec()].concat())
        }
        "/empty" => typed("image/png", b""),
        "/announced" => Answer::Stuck(head("content-length: 4097\r\n")),
        "/announced-more" => Answer::Stuck(head("content-length: 1099511627776\r\n")),
        "/chunked" => {
            let body = [b"1001\r\n".to_vec(), vec![0; 4097], b"\r\n0\r\n\r\n".to_vec()].concat();
            Answer::Bytes([head("transfer-encoding: chunked\r\n"), body].concat())
        }
        "/endless" => Answer::Endless(head("connection: close\r\n"), vec![0; 65_536]),
        "/endless-chunks" => {
            let chunk = [b"400\r\n".to_vec(), vec![0; 1024], b"\r\n".to_vec()].concat();
            Answer::Endless(head("transfer-encoding: chunked\r\n"), chunk)
        }
        "/gzip" => Answer::Bytes(reply("200 OK", "content-encoding: gzip\r\n", &[0x1f, 0x8b, 8])),
        // More than was announced: what is behind it is no answer to anything.
        "/longer.png" => {
            let mut bytes = reply("200 OK", "content-type: image/png\r\n", png);
            bytes.extend(reply("200 OK", "content-type: image/png\r\n", &super::png([0; 3])));
            Answer::Bytes(bytes)
        }
        "/short" => {
            let length = png.len() + 1;
            Answer::Last([head(&format!("content-length: {length}\r\n")), png.to_vec()].concat())
        }
        "/slow-head" => Answer::Stuck(b"HTTP/1.1 200 OK\r\n".to_vec()),
        "/silent" => Answer::Stuck(Vec::new()),
        "/slow-body" => Answer::Stuck([head("content-length: 100\r\n"), vec![0x89]].concat()),
        "/no-http" => Answer::Last(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        "/many-headers" => Answer::Last(head(&"a: b\r\n".repeat(1_000))),
        "/closed" => Answer::Last(Vec::new()),
        "/nowhere" => status("302 Found"),
        "/404" => status("404 Not Found"),
        "/410" => status("410 Gone"),
        "/429" => status("429 Too Many Requests"),
        "/500" => status("500 Internal Server Error"),
        "/503" => status("503 Service Unavailable"),
        _ => typed("image/png", png),
    }
}

#[test]
fn what_is_no_image_is_told_by_name() {
    network::run(async || {
        let world = World::new(LONG).await;
        for (path, reason, sentence) in NO_IMAGES {
            let url = format!("http://good.test{path}");
            let said = world.refused(&url, Code::InvalidArgument, reason).await;
            assert!(said.contains(sentence), "{path}: {said}");
        }
        is_good(&world.ask("http://good.test/good.png").await.unwrap());
        let failed = world.sidecar.metric("embark_fetches_total", &["outcome=\"failed\""]).await;
        // What was fetched and is no image is none of them.
        assert_eq!(failed.to_string(), (NO_IMAGES.len() - 3).to_string());
        assert!(world.sidecar.peak_memory() < 1 << 30);
        world.sidecar.stop().await;
    });
}

#[test]
fn what_may_pass_says_when_to_try_again() {
    network::run(async || {
        let world = World::new(LONG).await;
        for (path, sentence) in MAY_PASS {
            let url = format!("http://good.test{path}");
            let said = world.refused(&url, Code::Unavailable, "URL_UNAVAILABLE").await;
            assert!(said.contains(sentence), "{path}: {said}");
        }
        for url in ["http://missing.test/good.png", "https://good.test/good.png"] {
            let said = world.refused(url, Code::Unavailable, "URL_UNAVAILABLE").await;
            assert!(said.contains("cannot be fetched"), "{url}: {said}");
        }
        let labels = ["outcome=\"unavailable\""];
        let failed = world.sidecar.metric("embark_fetches_total", &labels).await;
        assert_eq!(failed.to_string(), (MAY_PASS.len() + 2).to_string());
        world.sidecar.stop().await;
    });
}

#[test]
fn who_is_slow_is_not_waited_for() {
    network::run(async || {
        let world = World::new(SHORT).await;
        for path in ["/slow-head", "/silent", "/slow-body"] {
            let url = format!("http://good.test{path}");
            let said = world.refused(&url, Code::Unavailable, "URL_UNAVAILABLE").await;
            assert!(said.contains("was not fetched within 500ms"), "{path}: {said}");
        }
        let slow = world.sidecar.metric("embark_fetches_total", &["outcome=\"timed_out\""]).await;
        assert_eq!(slow.to_string(), "3");
        until("the connections have ended", async || world.web.under_way().0 == 0).await;
        world.sidecar.stop().await;
    });
}

#[test]
fn images_come_by_any_honest_answer_and_none_is_taken_for_another() {
    network::run(async || {
        let world = World::new(LONG).await;
        for path in [
            "/good.png",
            "/bytes",
            "/bytes-of-s3",
            "/typeless",
            "/upper",
            "/last.png",
            "/until-the-end.png",
            "/longer.png",
            "/after-longer.png",
        ] {
            is_good(&world.ask(&format!("http://good.test{path}")).await.unwrap());
        }
        // One fails alone, by its place.
        let request = request(&["http://good.test/404", "http://good.test/good.png"]);
        let results = world.sidecar.call(request).await.unwrap().results;
        let error = results[0].error.as_ref().unwrap();
        assert_eq!((error.reason.as_str(), error.retry_after_ms), ("URL_FAILED", 0));
        assert!(error.message.starts_with("items[0].image_url: "), "{}", error.message);
        is_good(&results[1]);
        world.sidecar.stop().await;
    });
}
