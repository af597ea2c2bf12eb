//! EmbedStream: many batches on one stream.

use std::collections::{BTreeMap, BTreeSet};

use embark_sidecar::pb::client::{
    EmbedStreamRequest, EmbedStreamResponse, Source, embed_stream_response::Outcome,
};
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{request, sources, until},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// A stream: where messages go, and where answers come from.
async fn open(
    sidecar: &Sidecar,
) -> (mpsc::Sender<EmbedStreamRequest>, Streaming<EmbedStreamResponse>) {
    let (sender, messages) = mpsc::channel(256);
    let mut client = sidecar.embeddings().await;
    let answers = client.embed_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
    (sender, answers)
}

fn message(id: u64, texts: &[&str]) -> EmbedStreamRequest {
    EmbedStreamRequest { id, request: Some(request(texts)) }
}

fn reason(answer: &EmbedStreamResponse) -> &str {
    match answer.outcome.as_ref().unwrap() {
        Outcome::Error(error) => &error.reason,
        Outcome::Response(response) => panic!("{response:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_of_a_stream_is_answered_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let expected = sidecar.embed(&["text 0", "text 1", "text 2"]).await;
    let (sender, mut answers) = open(&sidecar).await;
    // More than may be under way.
    for id in 0..100 {
        sender.send(message(id, &[&format!("text {}", id % 3)])).await.unwrap();
    }
    drop(sender);
    let mut ids = BTreeSet::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let Some(Outcome::Response(response)) = answer.outcome else { panic!("{answer:?}") };
        assert_eq!(sources(&response.results), [Source::HitMemory]);
        let text = usize::try_from(answer.id % 3).unwrap();
        assert_eq!(response.results[0].vector, expected[text].vector);
        ids.insert(answer.id);
    }
    assert_eq!(ids, (0..100).collect());
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_overtakes_what_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    sidecar.embed(&["known"]).await;
    let (sender, mut answers) = open(&sidecar).await;
    let long = "long ".repeat(300);
    let slow: Vec<String> = (0..8).map(|n| format!("{n} {long}")).collect();
    let slow: Vec<&str> = slow.iter().map(String::as_str).collect();
    sender.send(message(1, &slow)).await.unwrap();
    sender.send(message(2, &["known"])).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().id, 2);
    assert_eq!(answers.message().await.unwrap().unwrap().id, 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_wrong_is_told_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let (sender, mut answers) = open(&sidecar).await;
    let mut other = request(&["a"]);
    other.model = "other".to_owned();
    sender.send(message(1, &[])).await.unwrap();
    sender.send(EmbedStreamRequest { id: 2, request: Some(other) }).await.unwrap();
    sender.send(EmbedStreamRequest { id: 3, request: None }).await.unwrap();
    sender.send(message(4, &["good"])).await.unwrap();
    drop(sender);
    let mut told = BTreeMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let is_good = matches!(answer.outcome, Some(Outcome::Response(_)));
        told.insert(answer.id, if is_good { "" } else { reason(&answer) }.to_owned());
    }
    let told: Vec<&str> = told.values().map(String::as_str).collect();
    assert_eq!(told, ["ITEMS_EMPTY", "MODEL_UNKNOWN", "MALFORMED", ""]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_stands_for_one_batch_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    let (sender, mut answers) = open(&sidecar).await;
    let long = "long ".repeat(300);
    sender.send(message(1, &[&long])).await.unwrap();
    sender.send(message(1, &["another"])).await.unwrap();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!((first.id, reason(&first)), (1, "MALFORMED"));
    let second = answers.message().await.unwrap().unwrap();
    assert!(matches!(second.outcome, Some(Outcome::Response(_))), "{second:?}");
    sender.send(message(1, &[&long])).await.unwrap();
    let third = answers.message().await.unwrap().unwrap();
    assert!(matches!(third.outcome, Some(Outcome::Response(_))), "{third:?}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_goes_takes_its_batches_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    let (sender, answers) = open(&sidecar).await;
    let texts: Vec<String> = (0..64).map(|n| format!("{n} ").repeat(200)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    sender.send(message(1, &texts)).await.unwrap();
    until("they wait", async || sidecar.metric("embark_queue_items", &[]).await > 16.0).await;
    drop((sender, answers));
    until("nothing is under way", async || sidecar.metric("embark_flights", &[]).await < 0.5).await;
    let dropped = sidecar.metric("embark_cancelled_before_compute_total", &[]).await;
    assert!(dropped > 16.0, "{dropped}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_open_at_the_end_is_told_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let (sender, mut answers) = open(&sidecar).await;
    sender.send(message(1, &["a"])).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().id, 1);
    let (end, ()) = tokio::join!(answers.message(), sidecar.stop());
    let end = end.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("shutting down"), "{end}");
    drop(sender);
}
