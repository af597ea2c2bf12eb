//! A service that hangs for ever while its health says that all is well.

use std::time::Duration;

use embark_sidecar::pb::client::Source;
use embark_tests::{
    Held, Manifest, Sidecar,
    manifest::{NOT_FINITE, PANICS},
    sidecar::{difference, request, sources, until},
};
use tokio::{sync::watch, time::timeout};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{SAME, anew, serve};

async fn serve_poisonous(queue: u32) -> (tempfile::TempDir, Sidecar) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::poisonous("small", folder.path(), (32, 16))
        .with("/spec/batching/maxItems", queue)
        .with("/spec/batching/queue/maxItems", queue);
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    (folder, sidecar)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_queue_is_answered_item_by_item_and_hangs_nothing() {
    let (_folder, sidecar) = serve_poisonous(8).await;
    let texts: Vec<String> = (0..256).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let held = Held::workers(&sidecar).await;
    let call = tokio::spawn({
        let (mut client, asked) = (sidecar.embeddings().await, request(&texts));
        async move { client.embed(asked).await }
    });
    until("the queue is full", async || sidecar.metric("embark_queue_items", &[]).await > 7.5)
        .await;
    held.release().await;
    let results = call.await.unwrap().unwrap().into_inner().results;
    let computed = results.iter().filter(|result| result.error.is_none()).count();
    assert_eq!(computed, 8, "as many as the queue has room for");
    for result in &results {
        match &result.error {
            Some(error) => assert_eq!(error.reason, "QUEUE_FULL"),
            None => assert_eq!(result.source(), Source::Computed),
        }
    }
    assert_eq!(sources(&sidecar.embed(&["the next"]).await), [Source::Computed]);
    assert!(sidecar.metric("embark_flights", &[]).await < 0.5, "something is still under way");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_panics_costs_one_row_and_hangs_nothing() {
    let (_folder, sidecar) = serve_poisonous(256).await;
    let good: Vec<String> = (0..62).map(|n| format!("text {n}")).collect();
    let mut texts: Vec<&str> = good.iter().map(String::as_str).collect();
    let right = anew(&sidecar, &texts).await;
    let (panics, not_finite) = (format!("a {PANICS} here"), format!("to {NOT_FINITE} and on"));
    texts.insert(9, &panics);
    texts.insert(40, &not_finite);
    for round in 0..3 {
        // So that they are in one run.
        let held = Held::workers(&sidecar).await;
        let call = tokio::spawn({
            let mut client = sidecar.embeddings().await;
            let texts: Vec<String> = texts.iter().map(|text| format!("{text} {round}")).collect();
            async move {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                client.embed(request(&texts)).await
            }
        });
        let all = async || sidecar.metric("embark_queue_items", &[]).await > 63.5;
        until("all of them wait", all).await;
        held.release().await;
        let mut results = call.await.unwrap().unwrap().into_inner().results;
        for (at, reason) in [(40, "NOT_FINITE"), (9, "INFERENCE")] {
            let error = results.remove(at).error.unwrap();
            assert_eq!((error.code, error.reason.as_str()), (tonic::Code::Internal.into(), reason));
        }
        assert_eq!(sources(&results), [Source::Computed; 62], "round {round}");
    }
    // Whoever was in a run with it has its own vector.
    for (found, right) in
        anew(&sidecar, &texts).await.iter().filter(|r| r.error.is_none()).zip(&right)
    {
        assert!(difference(&found.vector, &right.vector) <= SAME);
    }
    assert!(sidecar.log().contains("attempt to divide by zero"), "{}", sidecar.log());
    assert_eq!((sidecar.get("/ready").await.0, sidecar.get("/live").await.0), (200, 200));
    assert!(sidecar.metric("embark_flights", &[]).await < 0.5, "something is still under way");
    sidecar.stop().await;
}

async fn health(sidecar: &Sidecar) -> ServingStatus {
    let mut client = HealthClient::new(sidecar.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    client.check(request).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_that_hangs_is_told_by_health_and_hits_are_served_meanwhile() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    sidecar.embed(&["known"]).await;
    let held = Held::workers(&sidecar).await;
    let (stop, stopped) = watch::channel(false);
    let caller = tokio::spawn({
        let mut client = sidecar.embeddings().await;
        async move {
            for call in 0.. {
                let text = format!("never seen {call}");
                let mut asked = tonic::Request::new(request(&[&text]));
                asked.set_timeout(Duration::from_secs(20));
                let answer = client.embed(asked).await;
                if *stopped.borrow() {
                    return (call, answer);
                }
                // However long it hangs, a call has its deadline.
                answer.unwrap_err();
            }
            unreachable!("it calls until it is told to stop")
        }
    });
    until("readiness falls", async || {
        assert_eq!(sources(&sidecar.embed(&["known"]).await), [Source::HitMemory]);
        sidecar.get("/ready").await.0 == 503
    })
    .await;
    let (_, why) = sidecar.get("/ready").await;
    assert!(why.contains("has computed nothing of what waits for"), "{why}");
    until("health says so", async || health(&sidecar).await == ServingStatus::NotServing).await;
    // A restart would lose the cache, and what waits may yet be done.
    assert_eq!(sidecar.get("/live").await.0, 200);
    stop.send_replace(true);
    held.release().await;
    until("readiness returns", async || sidecar.get("/ready").await.0 == 200).await;
    until("health says so", async || health(&sidecar).await == ServingStatus::Serving).await;
    let (refused, last) = timeout(Duration::from_secs(60), caller).await.unwrap().unwrap();
    println!("{refused} calls were refused at their deadlines, the last: {:?}", last.is_ok());
    assert_eq!(sources(&sidecar.embed(&["the next"]).await), [Source::Computed]);
    sidecar.stop().await;
}
