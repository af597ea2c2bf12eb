//! Deadlines and cancels that nobody heeds: work is done for callers who have gone.

use std::time::Duration;

use embark_tests::{
    Held, Manifest, Sidecar, refusal,
    sidecar::{request, until},
};
use tonic::{Code, Request};

use super::serve;

async fn rows(sidecar: &Sidecar) -> f64 {
    sidecar.metric("embark_batch_items_sum", &[]).await
}

async fn cancelled(sidecar: &Sidecar) -> f64 {
    sidecar.metric("embark_cancelled_before_compute_total", &[]).await
}

async fn until_under_way(sidecar: &Sidecar, flights: u32) {
    until("others have gone", async || {
        (sidecar.metric("embark_flights", &[]).await - f64::from(flights)).abs() < 0.5
    })
    .await;
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text {n}")).collect()
}

/// So many rows are computed from here on, and so many are not, before the next caller's.
async fn assert_computes_one(sidecar: &Sidecar, (before, dropped): (f64, f64)) {
    assert!(sidecar.embed(&["the next"]).await[0].error.is_none());
    let computed = rows(sidecar).await - before;
    assert!((computed - 1.0).abs() < 0.5, "{computed} rows were computed, and one was wanted");
    until("those not computed are counted", async || {
        (cancelled(sidecar).await - dropped).abs() < 0.5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_caller_cancelled_are_not_computed() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let held = Held::workers(&sidecar).await;
    let (before, texts) = (rows(&sidecar).await, texts(24));
    let call = tokio::spawn({
        let (mut client, texts) = (sidecar.embeddings().await, texts.clone());
        async move {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            client.embed(request(&texts)).await
        }
    });
    until("they wait", async || sidecar.metric("embark_queue_items", &[]).await > 23.5).await;
    call.abort();
    until_under_way(&sidecar, 0).await;
    held.release().await;
    assert_computes_one(&sidecar, (before, 24.0)).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_deadline_has_passed_are_not_computed_and_their_caller_is_told_in_time() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let held = Held::workers(&sidecar).await;
    let (before, texts) = (rows(&sidecar).await, texts(24));
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut asked = Request::new(request(&texts));
    // Long, so that a busy machine too answers before the transports' timers end the call: nothing else ends it.
    asked.set_timeout(Duration::from_secs(4));
    let refused = sidecar.embeddings().await.embed(asked).await.unwrap_err();
    if refused.code() != Code::Cancelled {
        refusal::metadata(&refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    until_under_way(&sidecar, 0).await;
    held.release().await;
    assert_computes_one(&sidecar, (before, 24.0)).await;
    sidecar.stop().await;
}
