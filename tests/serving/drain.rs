//! The end: calls are answered, watchers hear of it, nothing hangs.

use std::time::Duration;

use embark_sidecar::pb::client::{
    EmbedStreamRequest, ItemResult, Source, embed_stream_response::Outcome,
};
use embark_tests::{
    Held, Manifest, Sidecar,
    sidecar::{Embeddings, Options, difference, request, sources, until},
};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
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

/// How long requests are taken after the signal.
const WAITS: [Option<&str>; 2] = [None, Some("700ms")];

fn draining(folder: &std::path::Path, wait: Option<&str>) -> Options {
    let mut options = Options::new(folder, &Manifest::tiny("tiny"));
    options.arguments =
        wait.into_iter().flat_map(|wait| ["--drain-wait", wait]).map(Into::into).collect();
    options
}

/// A call of some texts of a caller's, in a task.
async fn call_of(
    sidecar: &Sidecar,
    caller: usize,
) -> impl Future<Output = Vec<ItemResult>> + use<> {
    let mut client = sidecar.embeddings().await;
    async move {
        let texts = [format!("caller {caller}, first"), format!("caller {caller}, second")];
        let asked = request(&texts.each_ref().map(String::as_str));
        client.embed(asked).await.expect("it was under way").into_inner().results
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_under_way_is_answered_and_on_disk_and_the_port_is_closed() {
    const CALLERS: usize = 48;
    for wait in WAITS {
        let folder = tempfile::tempdir().unwrap();
        let options = draining(folder.path(), wait);
        let sidecar = Sidecar::start(&options).await;
        let held = Held::workers(&sidecar).await;
        let mut calls = JoinSet::new();
        for caller in 0..CALLERS {
            let call = call_of(&sidecar, caller).await;
            calls.spawn(async move { (caller, call.await) });
        }
        let all = async || sidecar.metric("embark_queue_items", &[]).await > 95.5;
        until("all of them wait", all).await;
        sidecar.signal("-TERM").await;
        if wait.is_some() {
            // Still taken: a client may not have heard of the drain.
            let call = call_of(&sidecar, CALLERS).await;
            calls.spawn(async move { (CALLERS, call.await) });
            until("it waits too", async || sidecar.metric("embark_queue_items", &[]).await > 97.5)
                .await;
        }
        let closed = async || TcpStream::connect(sidecar.grpc()).await.is_err();
        until("the port is closed", closed).await;
        assert_eq!(calls.try_join_next().map(|_| "one"), None, "nothing was computed yet");
        held.release().await;
        let (answered, ()) = tokio::join!(calls.join_all(), sidecar.stopped());
        assert_eq!(answered.len(), CALLERS + usize::from(wait.is_some()));

        let sidecar = Sidecar::start(&options).await;
        for (caller, results) in answered {
            assert_eq!(sources(&results), [Source::Computed; 2]);
            let kept = call_of(&sidecar, caller).await.await;
            assert_eq!(sources(&kept), [Source::HitDisk; 2], "caller {caller}");
            assert_eq!(kept[1].vector, results[1].vector);
        }
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_a_stream_that_are_under_way_are_answered_before_it_ends() {
    for wait in WAITS {
        let folder = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::start(&draining(folder.path(), wait)).await;
        let (sender, messages) = mpsc::channel(16);
        let mut client = sidecar.embeddings().await;
        let stream = client.embed_stream(ReceiverStream::new(messages)).await;
        let mut answers = stream.unwrap().into_inner();
        let held = Held::workers(&sidecar).await;
        for id in 0..6 {
            let asked = Some(request(&[&format!("text {id}")]));
            sender.send(EmbedStreamRequest { id, request: asked }).await.unwrap();
        }
        let all = async || sidecar.metric("embark_queue_items", &[]).await > 5.5;
        until("all of them wait", all).await;
        sidecar.signal("-TERM").await;
        let closed = async || TcpStream::connect(sidecar.grpc()).await.is_err();
        until("the port is closed", closed).await;
        held.release().await;
        let mut ids = Vec::new();
        let end = loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    assert!(matches!(answer.outcome, Some(Outcome::Response(_))), "{answer:?}");
                    ids.push(answer.id);
                }
                end => break end.unwrap_err(),
            }
        };
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
        assert_eq!(end.code(), Code::Unavailable, "{end}");
        sidecar.stopped().await;
        drop(sender);
    }
}

/// Calls until it is refused; gives what it was answered, and why it was refused.
async fn call_until_refused(
    mut client: Embeddings,
    caller: usize,
) -> (Vec<(String, Vec<f32>)>, Status) {
    let mut answered = Vec::new();
    for call in 0.. {
        let text = format!("caller {caller}, call {call}");
        match timeout(PROMPTLY * 2, client.embed(request(&[&text]))).await.expect("unanswered") {
            Ok(reply) => {
                let result = reply.into_inner().results.remove(0);
                assert!(result.error.is_none(), "{result:?}");
                answered.push((text, result.vector));
            }
            Err(refused) => return (answered, refused),
        }
    }
    unreachable!("it calls until it is refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_each_call_is_answered_or_told_that_the_server_is_not_there() {
    const CALLERS: usize = 32;
    for wait in WAITS {
        let folder = tempfile::tempdir().unwrap();
        let options = draining(folder.path(), wait);
        let sidecar = Sidecar::start(&options).await;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(call_until_refused(sidecar.embeddings().await, caller));
        }
        let busy = async || sidecar.metric("embark_batch_items_sum", &[]).await > 500.0;
        until("everybody has called", busy).await;
        sidecar.signal("-TERM").await;
        let (ended, ()) = tokio::join!(callers.join_all(), sidecar.stopped());
        let mut answered = Vec::new();
        for (answers, refused) in ended {
            answered.extend(answers);
            // The client's words for a call that it had not sent when the connection was closed, or that the server said that
            // it would not begin (GOAWAY, RFC 9113, section 6.8).
            let said = format!("{refused:?}");
            let never_left = (refused.code() == Code::Cancelled
                && said.contains("connection closed"))
                || (refused.code() == Code::Internal && said.contains("GoAway(b\"\", NO_ERROR"));
            assert!(refused.code() == Code::Unavailable || never_left, "{refused}");
        }
        let sidecar = Sidecar::start(&options).await;
        let mut kept = 0;
        for answers in answered.chunks(256) {
            let texts: Vec<&str> = answers.iter().map(|(text, _)| text.as_str()).collect();
            for (found, (text, vector)) in sidecar.embed(&texts).await.iter().zip(answers) {
                assert!(difference(&found.vector, vector) <= 1e-5, "{text}");
                kept += usize::from(found.source() == Source::HitDisk);
            }
        }
        // Under overload the way to the disk drops some: not many.
        assert!(kept * 2 > answered.len(), "{kept} of {} were kept", answered.len());
        println!("{wait:?}: {kept} of {} were kept", answered.len());
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_keeps_reflection_open_does_not_hold_the_end_up() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let (asks, asked) = mpsc::channel(1);
    let list = Some(MessageRequest::ListServices(String::new()));
    asks.send(ServerReflectionRequest { message_request: list, ..Default::default() })
        .await
        .unwrap();
    let mut client = ServerReflectionClient::new(sidecar.channel().await);
    let answers = client.server_reflection_info(ReceiverStream::new(asked)).await;
    let mut answers = answers.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    timeout(PROMPTLY, sidecar.stop()).await.expect("it ends promptly");
    let ended = timeout(PROMPTLY, answers.message()).await;
    assert!(matches!(ended, Ok(Ok(None) | Err(_))), "{ended:?}");
}
