use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use super::*;

/// The addresses of a name, as a program behind the wrapper is told.
async fn addresses(folder: &Path, name: &str) -> Vec<String> {
    let mut words = wrapper(folder);
    words.extend(["getent", "ahosts", name].map(Into::into));
    let output = Command::new(&words[0]).args(&words[1..]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn names_are_answered_as_a_test_says_one_answer_after_the_other() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::start().await;
        names.set("both.test", &[PRIVATE_V6, PRIVATE]);
        names.set_in_turn("turns.test", &[&[PRIVATE], &["127.0.0.1"]]);
        assert_eq!(addresses(folder.path(), "both.test").await, [PRIVATE, PRIVATE_V6]);
        assert_eq!(addresses(folder.path(), "turns.test").await, [PRIVATE]);
        for asked in 2..4 {
            assert_eq!(addresses(folder.path(), "turns.test").await, ["127.0.0.1"]);
            assert_eq!(names.asked("turns.test"), asked);
        }
        assert_eq!(addresses(folder.path(), "missing.test").await, [""; 0]);
    });
}

#[test]
fn a_server_says_who_connected_where_and_how_many_at_a_time() {
    run(async || {
        let web = Web::start(|path| match path {
            "/held" => Answer::Held(b"held".to_vec()),
            _ => Answer::Last(path.as_bytes().to_vec()),
        })
        .await;
        for address in ADDRESSES.into_iter().chain(["127.0.0.1", "::1"]) {
            let address: std::net::IpAddr = address.parse().unwrap();
            let mut stream = TcpStream::connect((address, 80)).await.unwrap();
            stream.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!((answer.as_str(), web.connections().last()), ("/a", Some(&address)));
        }
        assert_eq!(web.count("/a"), ADDRESSES.len() + 2);
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect((PRIVATE, 80)).await.unwrap();
            stream.write_all(b"GET /held HTTP/1.1\r\n\r\n").await.unwrap();
            streams.push(stream);
        }
        crate::sidecar::until("all are held", async || web.under_way().0 == 3).await;
        web.release();
        for mut stream in streams {
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"held");
        }
        assert_eq!(web.under_way(), (0, 3));
    });
}
