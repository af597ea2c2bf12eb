//! Overload that has another code on each path, so that balancers and clients take it for something else.

use embark_sidecar::pb::client::{
    CacheControl, EmbedRequest, EmbedStreamRequest, ItemError, Priority, Source,
    embed_stream_response::Outcome,
};
use embark_tests::{
    Held, Manifest, Sidecar, refusal,
    sidecar::{request, until},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::serve;

const KNOWN: &str = "known before";
/// The soonest that a caller is told to try again.
const SOONEST_MS: u64 = 10;

/// A model of which nothing is computed until the workers are released, and whose queue these texts fill.
async fn overloaded(
    manifest: Manifest,
    texts: &[&str],
) -> (tempfile::TempDir, Sidecar, Held, JoinHandle<()>) {
    let (folder, sidecar) = serve(manifest).await;
    sidecar.embed(&[KNOWN]).await;
    let held = Held::workers(&sidecar).await;
    let (mut client, asked, count) = (sidecar.embeddings().await, request(texts), texts.len());
    let waiting = tokio::spawn(async move {
        let results = client.embed(asked).await.unwrap().into_inner().results;
        assert!(results.len() == count && results.iter().all(|result| result.error.is_none()));
    });
    #[expect(clippy::cast_precision_loss, reason = "texts are few")]
    let full = async || sidecar.metric("embark_queue_items", &[]).await > count as f64 - 0.5;
    until("the queue is full", full).await;
    (folder, sidecar, held, waiting)
}

/// Of an item, or of a batch on a stream.
fn assert_is_overload(error: &ItemError) {
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted.into(), "QUEUE_FULL"));
    assert!(u64::from(error.retry_after_ms) >= SOONEST_MS, "{error:?}");
    assert!(error.message.contains(' '), "{error:?}");
}

/// Of a call.
fn assert_is_refusal(status: &Status) {
    refusal::metadata(status, Code::ResourceExhausted, "QUEUE_FULL");
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    let pushback: u64 = pushback.parse().unwrap();
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(pushback >= SOONEST_MS, "{pushback}");
    // Whole milliseconds in the one.
    assert_eq!(u128::from(pushback), retry.as_millis(), "two answers to one question");
}

/// What each way of asking is told of a text that is new.
async fn assert_one_code_everywhere(sidecar: &Sidecar) {
    let no_cache = CacheControl { no_cache: true, ..CacheControl::default() };
    let bulk = Priority::Bulk.into();
    for refused in [
        request(&["alone"]),
        request(&["one of two", "the other of two"]),
        EmbedRequest { priority: bulk, ..request(&["of the bulk"]) },
        EmbedRequest { cache: Some(no_cache), ..request(&[KNOWN]) },
    ] {
        assert_is_refusal(&sidecar.call(refused).await.unwrap_err());
    }
    let results = sidecar.embed(&[KNOWN, "beside a hit"]).await;
    assert_eq!(results[0].source(), Source::HitMemory);
    assert_is_overload(results[1].error.as_ref().unwrap());

    let (sender, messages) = mpsc::channel(4);
    let message = |id, texts: &[&str]| EmbedStreamRequest { id, request: Some(request(texts)) };
    sender.send(message(1, &["alone on a stream"])).await.unwrap();
    sender.send(message(2, &[KNOWN, "beside a hit on a stream"])).await.unwrap();
    drop(sender);
    let mut client = sidecar.embeddings().await;
    let mut answers =
        client.embed_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
    let mut answered = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        answered.push(answer.id);
        match answer.outcome.unwrap() {
            Outcome::Error(error) => {
                assert_eq!(answer.id, 1);
                assert_is_overload(&error);
            }
            Outcome::Response(reply) => {
                assert_eq!((answer.id, reply.results[0].source()), (2, Source::HitMemory));
                assert_is_overload(reply.results[1].error.as_ref().unwrap());
            }
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_full_of_rows_has_one_code_on_every_path() {
    let manifest = Manifest::tiny("tiny")
        .with("/spec/batching/maxItems", 4)
        .with("/spec/batching/queue/maxItems", 4);
    let (_folder, sidecar, held, waiting) =
        overloaded(manifest, &["first", "second", "third", "fourth"]).await;
    assert_one_code_everywhere(&sidecar).await;
    held.release().await;
    waiting.await.unwrap();
    sidecar.embed(&["alone", "one of two"]).await.iter().for_each(|r| assert!(r.error.is_none()));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_full_of_long_texts_has_one_code_on_every_path() {
    let manifest = Manifest::tiny("tiny")
        .with("/spec/input/text/maxTokens", 32)
        .with("/spec/batching/maxTokens", 64)
        .with("/spec/batching/queue/maxTokens", 68);
    // Each costs 34: however short a third is, it has no room, though there is room for more rows.
    let long = ["one", "two"].map(|word| format!("{word} ").repeat(64));
    let (_folder, sidecar, held, waiting) =
        overloaded(manifest, &long.each_ref().map(String::as_str)).await;
    assert_one_code_everywhere(&sidecar).await;
    held.release().await;
    waiting.await.unwrap();
    sidecar.stop().await;
}
