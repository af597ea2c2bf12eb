//! Callers' deadlines: what is there is given before they end, and what cannot be is refused at once.

use std::time::Duration;

use embark_sidecar::pb::client::{EmbedRequest, EmbedResponse, Source};
use embark_tests::{
    Held, Manifest, Sidecar, refusal,
    sidecar::{request, sources, until},
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

async fn call_within(
    sidecar: &Sidecar,
    request: EmbedRequest,
    timeout: Duration,
) -> Result<EmbedResponse, Status> {
    let mut asked = Request::new(request);
    asked.set_timeout(timeout);
    sidecar.embeddings().await.embed(asked).await.map(tonic::Response::into_inner)
}

/// What is answered within the longest timeout that is certain to end before a long text is computed. Such a one is so
/// short that a busy machine may let it pass before anything is answered; another call is made then, of another text.
async fn call_in_time(
    sidecar: &Sidecar,
    request_of: impl Fn(usize) -> EmbedRequest,
) -> Result<EmbedResponse, Status> {
    for attempt in 0..200 {
        let answer = call_within(sidecar, request_of(attempt), Duration::from_millis(15)).await;
        // What the transports' own timers say on either side.
        if !matches!(&answer, Err(status) if status.code() == Code::Cancelled) {
            return answer;
        }
    }
    panic!("no call was answered within its time");
}

/// Callers who wait, for longer than any test's deadline. On a busy machine they are told that it was too long.
async fn crowd(sidecar: &Sidecar) -> JoinSet<()> {
    let texts: Vec<String> = (0..96).map(|n| long(&format!("crowd {n}"))).collect();
    let mut crowd = JoinSet::new();
    for texts in texts.chunks(8) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (mut client, request) = (sidecar.embeddings().await, request(&texts));
        crowd.spawn(async move { drop(client.embed(request).await) });
    }
    let waiting = async || sidecar.metric("embark_queue_items", &[]).await > 64.0;
    until("they wait", waiting).await;
    crowd
}

/// A text that takes its model far longer than a few milliseconds.
fn long(name: &str) -> String {
    format!("{name} ").repeat(300)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_given_before_the_deadline_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    sidecar.embed(&["known"]).await;
    let mixed = |attempt| request(&["known", &long(&format!("new {attempt}"))]);
    let results = call_in_time(&sidecar, mixed).await.unwrap().results;
    assert_eq!(results[0].source(), Source::HitMemory);
    let error = results[1].error.as_ref().unwrap();
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::DeadlineExceeded.into(), "DEADLINE_EXCEEDED")
    );
    let alone = |attempt| request(&[&long(&format!("alone {attempt}"))]);
    let alone = call_in_time(&sidecar, alone).await;
    refusal::metadata(&alone.unwrap_err(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    until("nothing is under way", async || sidecar.metric("embark_flights", &[]).await < 0.5).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_would_wait_too_long_is_refused_at_once_and_its_hits_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    sidecar.embed(&["known"]).await;
    // Nothing is computed meanwhile, however long this takes.
    let held = Held::workers(&sidecar).await;
    let crowd = crowd(&sidecar).await;
    let refused = call_within(&sidecar, request(&["new"]), Duration::from_millis(300)).await;
    let refused = refused.unwrap_err();
    refusal::metadata(&refused, Code::ResourceExhausted, "WAIT_TOO_LONG");
    let pushback = refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert!(pushback.parse::<u64>().unwrap() >= 10, "{pushback}");
    let results =
        call_within(&sidecar, request(&["known", "new"]), Duration::from_millis(300)).await;
    let results = results.unwrap().results;
    assert_eq!(results[0].source(), Source::HitMemory);
    let error = results[1].error.as_ref().unwrap();
    assert!(error.reason == "WAIT_TOO_LONG" && error.retry_after_ms >= 10, "{error:?}");
    assert!(sidecar.metric("embark_sheds_total", &["WAIT_TOO_LONG"]).await > 1.5, "both");
    // Whoever has the time waits, and the crowd goes.
    let waits = tokio::spawn({
        let mut client = sidecar.embeddings().await;
        async move { client.embed(request(&["new"])).await }
    });
    let joined = async || sidecar.metric("embark_flights", &[]).await > 96.5;
    until("it waits", joined).await;
    drop(crowd);
    held.release().await;
    let results = waits.await.unwrap().unwrap().into_inner().results;
    assert_eq!(sources(&results), [Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_takes_the_default_is_given_it_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::minilm("minilm").with("/spec/cache/waitBudget", "1m");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let late = |attempt| request(&[&long(&format!("late {attempt}"))]);
    let results = call_in_time(&sidecar, late).await.unwrap().results;
    assert_eq!(sources(&results), [Source::Default]);
    until("it is computed behind", async || {
        sources(&sidecar.embed(&[&long("late 0")]).await) == [Source::HitMemory]
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    for wrong in ["soon", "10", "1.5S", "123456789m"] {
        let mut asked = Request::new(request(&["a"]));
        asked.metadata_mut().insert("grpc-timeout", wrong.parse().unwrap());
        let refused = sidecar.embeddings().await.embed(asked).await.unwrap_err();
        refusal::of_field(&refused, Code::InvalidArgument, "MALFORMED", "grpc-timeout");
        assert!(refused.message().contains("1 to 8 digits"), "{refused}");
    }
    sidecar.stop().await;
}
