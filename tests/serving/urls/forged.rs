//! Requests that a server is to be made to send by others: a row a case. The server listens at every address, those of
//! loopback and of metadata too, so that whatever is connected to is seen.

use std::net::IpAddr;

use super::*;

/// Addresses that may be connected to.
const MAY: [&str; 3] = [PRIVATE, PRIVATE_V6, PUBLIC];

/// Names, and what they stand for.
const NAMES: [(&str, &[&str]); 25] = [
    ("v6.test", &[PRIVATE_V6]),
    ("public.test", &[PUBLIC]),
    ("loopback.test", &["127.0.0.1"]),
    ("loopback-high.test", &["127.255.255.254"]),
    ("loopback6.test", &["::1"]),
    ("mapped.test", &["::ffff:127.0.0.1"]),
    ("compatible.test", &["::127.0.0.1"]),
    ("nothing.test", &["0.0.0.0"]),
    ("nothing6.test", &["::"]),
    ("metadata.test", &["169.254.169.254"]),
    ("metadata-mapped.test", &["::ffff:169.254.169.254"]),
    ("metadata-amazon6.test", &["fd00:ec2::254"]),
    ("metadata-alibaba.test", &["100.100.100.200"]),
    ("azure.test", &["168.63.129.16"]),
    ("link6.test", &["fe80::1"]),
    ("private.test", &["10.88.0.1"]),
    ("private-home.test", &["192.168.7.7"]),
    ("private6.test", &["fd78::1"]),
    ("nat64.test", &["64:ff9b::10.77.0.1"]),
    ("six-to-four.test", &["2002:7f00:1::1"]),
    ("multicast.test", &["224.0.0.1"]),
    ("broadcast.test", &["255.255.255.255"]),
    ("documentation.test", &["192.0.2.1"]),
    ("mixed.test", &[PRIVATE, "127.0.0.1"]),
    ("mixed6.test", &[PRIVATE, "::1"]),
];

/// URLs that are given and refused, with what is said of them.
const GIVEN: [(&str, &str); 58] = [
    // Names that lead to where nothing is fetched from.
    ("http://loopback.test/good.png", "127.0.0.1, which is never"),
    ("http://loopback-high.test/good.png", "127.255.255.254, which is never"),
    ("http://loopback6.test/good.png", "::1, which is never"),
    ("http://mapped.test/good.png", "127.0.0.1, which is never"),
    ("http://compatible.test/good.png", "which is never"),
    ("http://nothing.test/good.png", "0.0.0.0, which is never"),
    ("http://nothing6.test/good.png", "which is never"),
    ("http://metadata.test/latest/meta-data/", "169.254.169.254, which is never"),
    ("http://metadata-mapped.test/good.png", "169.254.169.254, which is never"),
    ("http://metadata-amazon6.test/good.png", "fd00:ec2::254, which is never"),
    ("http://metadata-alibaba.test/good.png", "100.100.100.200, which is never"),
    ("http://azure.test/good.png", "168.63.129.16, which is never"),
    ("http://link6.test/good.png", "fe80::1, which is never"),
    ("http://private.test/good.png", "10.88.0.1, a private address"),
    ("http://private-home.test/good.png", "192.168.7.7, a private address"),
    ("http://private6.test/good.png", "fd78::1, a private address"),
    ("http://nat64.test/good.png", "which is never"),
    ("http://six-to-four.test/good.png", "which is never"),
    ("http://multicast.test/good.png", "224.0.0.1, which is never"),
    ("http://broadcast.test/good.png", "255.255.255.255, which is never"),
    ("http://documentation.test/good.png", "192.0.2.1, which is never"),
    ("http://mixed.test/good.png", "127.0.0.1, which is never"),
    ("http://mixed6.test/good.png", "::1, which is never"),
    ("http://localhost/good.png", "which is never"),
    // Addresses, however they are spelled.
    ("http://127.0.0.1/good.png", "127.0.0.1, which is never"),
    ("http://127.1/good.png", "127.0.0.1, which is never"),
    ("http://2130706433/good.png", "127.0.0.1, which is never"),
    ("http://0x7f000001/good.png", "127.0.0.1, which is never"),
    ("http://0177.0.0.1/good.png", "127.0.0.1, which is never"),
    ("http://0x7f.0.0.0x1/good.png", "127.0.0.1, which is never"),
    ("http://①②⑦.⓪.⓪.①/good.png", "127.0.0.1, which is never"),
    ("http://127。0。0。1/good.png", "127.0.0.1, which is never"),
    ("http://%31%32%37.0.0.1/good.png", "127.0.0.1, which is never"),
    ("http://0/good.png", "0.0.0.0, which is never"),
    ("http://169.254.169.254/latest/meta-data/", "169.254.169.254, which is never"),
    ("http://0xa9fea9fe/latest/meta-data/", "169.254.169.254, which is never"),
    ("http://10.88.0.1/good.png", "10.88.0.1, a private address"),
    ("http://192.168.7.7/good.png", "192.168.7.7, a private address"),
    ("http://[::1]/good.png", "host or port that is not allowed"),
    ("http://[::ffff:127.0.0.1]/good.png", "host or port that is not allowed"),
    ("http://[::ffff:a4d:1]/good.png", "host or port that is not allowed"),
    ("http://[64:ff9b::7f00:1]/good.png", "host or port that is not allowed"),
    // Other hosts, ports and schemes than are allowed.
    ("http://good.test.evil.example/good.png", "host or port that is not allowed"),
    ("http://goodtest/good.png", "host or port that is not allowed"),
    ("http://test/good.png", "host or port that is not allowed"),
    ("http://good.test./good.png", "host or port that is not allowed"),
    ("http://.test/good.png", "host or port that is not allowed"),
    ("http://good.test:8080/good.png", "host or port that is not allowed"),
    ("http://good.test:22/", "host or port that is not allowed"),
    ("http://good.test@evil.example/good.png", "has a user or a password"),
    ("http://evil.example\\@good.test/good.png", "host or port that is not allowed"),
    ("http://user:word@good.test/good.png", "has a user or a password"),
    ("ftp://good.test/good.png", "http and https are"),
    ("file:///etc/passwd", "http and https are"),
    ("gopher://good.test/_GET%20/", "http and https are"),
    ("data:image/png;base64,iVBORw0KGgo=", "http and https are"),
    ("unix:/run/embark/embark.sock", "http and https are"),
    ("jar:http://good.test/good.png!/", "http and https are"),
];

/// Where a server redirects to, and what is said of it.
const REDIRECTED: [(&str, &str); 17] = [
    ("http://127.0.0.1/good.png", "127.0.0.1, which is never"),
    ("http://2130706433/good.png", "127.0.0.1, which is never"),
    ("//127.0.0.1/good.png", "127.0.0.1, which is never"),
    ("http://loopback.test/good.png", "127.0.0.1, which is never"),
    ("http://loopback6.test/good.png", "::1, which is never"),
    ("http://mapped.test/good.png", "127.0.0.1, which is never"),
    ("http://metadata.test/latest/meta-data/", "169.254.169.254, which is never"),
    ("http://169.254.169.254/latest/meta-data/", "169.254.169.254, which is never"),
    ("http://private.test/good.png", "10.88.0.1, a private address"),
    ("http://10.88.0.1/good.png", "10.88.0.1, a private address"),
    ("http://mixed.test/good.png", "127.0.0.1, which is never"),
    ("http://evil.example/good.png", "host or port that is not allowed"),
    ("//good.test:8080/good.png", "host or port that is not allowed"),
    ("//user:word@good.test/good.png", "has a user or a password"),
    ("file:///etc/passwd", "http and https are"),
    ("ftp://good.test/good.png", "http and https are"),
    ("http://[::1]/good.png", "host or port that is not allowed"),
];

#[test]
fn no_url_leads_to_where_nothing_is_fetched_from() {
    network::run(async || {
        let world = named().await;
        for (url, sentence) in GIVEN {
            let said = world.refused(url, Code::PermissionDenied, "URL_NOT_ALLOWED").await;
            assert!(said.contains(sentence), "{url}: {said}");
        }
        assert_eq!(world.web.connections(), [] as [IpAddr; 0]);
        world.sidecar.stop().await;
    });
}

#[test]
fn no_redirect_leads_to_where_nothing_is_fetched_from() {
    network::run(async || {
        let world = named().await;
        for (location, sentence) in REDIRECTED {
            let url = format!("http://good.test/to?{location}");
            let said = world.refused(&url, Code::PermissionDenied, "URL_NOT_ALLOWED").await;
            assert!(said.contains(sentence), "{location}: {said}");
        }
        let seen = world.web.seen();
        assert_eq!(seen.len(), REDIRECTED.len());
        assert!(seen.iter().all(|seen| seen.path.starts_with("/to?")), "{seen:#?}");
        let may: Vec<IpAddr> = MAY.iter().map(|address| address.parse().unwrap()).collect();
        assert!(world.web.connections().iter().all(|address| may.contains(address)));
        let redirects = world.sidecar.metric("embark_fetch_redirects_total", &[]).await;
        assert_eq!(redirects.to_string(), REDIRECTED.len().to_string());
        world.sidecar.stop().await;
    });
}

#[test]
fn what_is_allowed_is_fetched_with_nothing_but_its_url() {
    network::run(async || {
        let world = named().await;
        for url in [
            "http://good.test/good.png",
            "http://v6.test/good.png#fragment",
            "http://public.test/good.png",
            "http://GOOD.test:80/other/../good.png?a=b",
            "http://ports.test:8080/good.png",
            "http://0x0a4d0001/good.png",
            "http://good.test/to?//public.test/good.png",
            "http://good.test/to?good.png",
        ] {
            if url.contains("ports.test") {
                world.names.set("ports.test", &[PRIVATE]);
            }
            is_good(&world.ask(url).await.unwrap_or_else(|status| panic!("{url}: {status}")));
        }
        for seen in world.web.seen() {
            let head = seen.head.to_lowercase();
            assert!(
                head.starts_with("get /") && head.contains("\r\naccept-encoding: identity\r\n")
            );
            assert!(!seen.path.contains("fragment"));
            for unwanted in ["authorization", "cookie", "referer", "proxy", "traceparent"] {
                assert!(!head.contains(unwanted), "{head}");
            }
        }
        world.sidecar.stop().await;
    });
}

#[test]
fn a_name_that_is_answered_otherwise_the_next_time_leads_to_what_was_judged() {
    network::run(async || {
        let world = named().await;
        // Were it asked again to connect, it would be loopback.
        world.names.set_in_turn("rebound.test", &[&[PRIVATE], &["127.0.0.1"]]);
        is_good(&world.ask("http://rebound.test/last.png").await.unwrap());
        assert_eq!(world.names.asked("rebound.test"), 1);
        // The connection has ended, so it is asked again, and judged again.
        let url = "http://rebound.test/good.png";
        let said = world.refused(url, Code::PermissionDenied, "URL_NOT_ALLOWED").await;
        assert!(said.contains("127.0.0.1"), "{said}");
        let private: IpAddr = PRIVATE.parse().unwrap();
        assert_eq!(world.web.connections(), [private]);
        world.sidecar.stop().await;
    });
}

#[test]
fn what_is_no_url_is_refused_before_anything_is_asked() {
    network::run(async || {
        let world = named().await;
        let long = format!("http://good.test/{}", "a".repeat(9_000));
        for url in [
            "",
            "good.png",
            "//good.test/good.png",
            "http://",
            "http://good.test:99999/",
            "http://good.test/a\r\nhost: evil",
            " http://good.test/",
            "http://go\tod.test/",
            "http://a%00.test/",
            "http://[::1/",
            long.as_str(),
        ] {
            world.refused(url, Code::InvalidArgument, "MALFORMED").await;
        }
        assert!(world.web.connections().is_empty() && world.names.asked("good.test") == 0);
        world.sidecar.stop().await;
    });
}

async fn named() -> World {
    let world = World::new(LONG).await;
    for (name, addresses) in NAMES {
        world.names.set(name, addresses);
    }
    world
}
