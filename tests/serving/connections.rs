//! Connections that are no use: too many of them, and such as say nothing.

use embark_tests::{Manifest, Sidecar};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
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

async fn limit_descriptors(sidecar: &Sidecar, most: usize) {
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={}", sidecar.id())).arg(format!("--nofile={most}:{most}"));
    assert!(command.status().await.expect("prlimit is installed").success());
}
