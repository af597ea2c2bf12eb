//! The end: calls are answered, watchers hear of it, nothing hangs.

use std::time::Duration;

use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, request, sources, until},
};
use tokio::time::timeout;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Less than the time that a server waits for calls which do not end.
const PROMPTLY: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_under_way_is_answered_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::minilm("minilm"));
    let sidecar = Sidecar::start(&options).await;
    let texts: Vec<String> =
        (0..48).map(|i| format!("text {i}: {}", "all work and no play ".repeat(20))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut client = sidecar.embeddings().await;
    let call = tokio::spawn({
        let request = request(&texts);
        async move { client.embed(request).await }
    });
    let waiting = async || {
        assert!(!call.is_finished(), "the call ended before it was seen under way");
        sidecar.model_status("minilm").await["queue"]["items"].as_i64().unwrap() > 0
    };
    until("rows of the call wait", waiting).await;
    sidecar.stop().await;
    let results = call.await.unwrap().unwrap().into_inner().results;
    assert_eq!(sources(&results), vec![Source::Computed; texts.len()]);

    let sidecar = Sidecar::start(&options).await;
    let again = sidecar.embed(&texts).await;
    assert_eq!(sources(&again), vec![Source::HitDisk; texts.len()]);
    assert_eq!(again[47].vector, results[47].vector);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_it_says_so_and_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    options.arguments = ["--drain-wait", "10m"].map(Into::into).into();
    let sidecar = Sidecar::start(&options).await;
    let mut health = HealthClient::new(sidecar.channel().await);
    let mut watches = Vec::new();
    for service in ["", "embark.v1.EmbeddingService", "tiny"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        // Health follows readiness, a moment behind.
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
        watches.push(watch);
    }
    sidecar.signal("-TERM").await;
    for watch in &mut watches {
        let next = watch.message().await.unwrap().unwrap();
        assert_eq!(next.status(), ServingStatus::NotServing);
    }
    let (code, why) = sidecar.get("/ready").await;
    assert!(code == 503 && why.contains("draining"), "{code} {why}");
    assert_eq!(sidecar.get("/live").await.0, 200);
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::Computed]);

    // The second signal ends the wait, and no call that watches holds the process up.
    timeout(PROMPTLY, sidecar.stop()).await.expect("it ends promptly");
    for watch in &mut watches {
        assert!(watch.message().await.unwrap().is_none(), "a change after the drain");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_the_end_up() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let _idle = (sidecar.channel().await, sidecar.channel().await);
    let _silent = tokio::net::TcpStream::connect(sidecar.grpc()).await.unwrap();
    timeout(PROMPTLY, sidecar.stop()).await.expect("it ends promptly");
}
