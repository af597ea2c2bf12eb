//! Connections that are no use: too many of them, and such as say nothing.

use std::time::Duration;

use embark_tests::{
    Manifest, Sidecar,
    sidecar::{LIMIT, Options, request},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::{Instant, timeout},
};

#[tokio::test(flavor = "multi_thread")]
async fn no_free_descriptor_is_waited_out_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let before = sidecar.embed(&["a"]).await;
    // A few more than are open now.
    let open = std::fs::read_dir(format!("/proc/{}/fd", sidecar.id())).unwrap().count();
    limit_descriptors(&sidecar, open + 8).await;
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(TcpStream::connect(sidecar.grpc()).await.unwrap());
    }
    sidecar.wait_for_line_with("connections cannot be accepted, and are tried again").await;
    drop(held);
    sidecar.wait_for_line("connections are accepted again").await;
    assert_eq!(sidecar.embed(&["a"]).await[0].vector, before[0].vector);
    let said = sidecar.log().matches("connections cannot be accepted").count();
    assert!(said <= 4, "said {said} times:\n{}", sidecar.log());
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_does_not_keep_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let mut stream = TcpStream::connect(sidecar.grpc()).await.unwrap();
    stream.write_all(b"P").await.unwrap();
    let mut answer = Vec::new();
    // It is the server that ends the connection: cleanly, or with a reset.
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_given_up_and_no_call_is_lost_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    options.arguments = ["--max-connection-age", "1s"].map(Into::into).to_vec();
    let sidecar = Sidecar::start(&options).await;
    // A client that says what every HTTP/2 client says first, with empty settings, and then nothing.
    let mut silent = TcpStream::connect(sidecar.grpc()).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let ended = tokio::spawn(async move {
        let mut said = Vec::new();
        timeout(LIMIT, silent.read_to_end(&mut said)).await.expect("the server ends it").unwrap();
        said
    });
    // Calls on one channel meanwhile, and for as long again: none fails when its connection goes.
    let began = Instant::now();
    let mut client = sidecar.embeddings().await;
    while !ended.is_finished() || began.elapsed() < Duration::from_millis(2500) {
        client.embed(request(&["a"])).await.unwrap();
    }
    let said = ended.await.unwrap();
    // GOAWAY is the frame of type 7.
    let mut frames = said.as_slice();
    let mut types = Vec::new();
    while let [a, b, c, kind, rest @ ..] = frames {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        types.push(*kind);
        frames = rest.get(5 + length..).unwrap_or_default();
    }
    assert!(types.contains(&7), "{types:?}");
    sidecar.stop().await;
}

async fn limit_descriptors(sidecar: &Sidecar, most: usize) {
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={}", sidecar.id())).arg(format!("--nofile={most}:{most}"));
    assert!(command.status().await.expect("prlimit is installed").success());
}
