//! Deadlines and cancels that nobody heeds: work is done for callers who have gone.

use std::time::Duration;

use embark_tests::{
    Held, Manifest, Sidecar, refusal,
    sidecar::{pass, request, until},
};
use tonic::{Code, Request};

use super::serve;

/// Rows that the queue has room for, and that are asked for by who does not wait for them.
const ROWS: u32 = 24;

async fn rows(sidecar: &Sidecar) -> f64 {
    sidecar.metric("embark_batch_items_sum", &[]).await
}

async fn cancelled(sidecar: &Sidecar) -> f64 {
    sidecar.metric("embark_cancelled_before_compute_total", &[]).await
}

fn texts() -> Vec<String> {
    (0..ROWS).map(|n| format!("text {n}")).collect()
}

async fn serve_with_room() -> (tempfile::TempDir, Sidecar) {
    let manifest = Manifest::tiny("tiny")
        .with("/spec/batching/maxItems", ROWS)
        .with("/spec/batching/queue/maxItems", ROWS);
    serve(manifest).await
}

/// The next caller finds a place, for those before it gave theirs up, and the only row that is computed is its own.
async fn assert_computes_the_next_alone(sidecar: &Sidecar, held: Held) {
    let before = (rows(sidecar).await, cancelled(sidecar).await);
    let next = tokio::spawn({
        let mut client = sidecar.embeddings().await;
        async move {
            loop {
                match client.embed(request(&["the next"])).await {
                    Ok(reply) => return reply.into_inner().results.remove(0),
                    // As long as the server has not heard that the others have gone.
                    Err(full) => {
                        refusal::metadata(&full, Code::ResourceExhausted, "QUEUE_FULL");
                    }
                }
                pass(Duration::from_millis(20)).await;
            }
        }
    });
    until("those who have gone give up their places", async || {
        (cancelled(sidecar).await - before.1 - f64::from(ROWS)).abs() < 0.5
    })
    .await;
    held.release().await;
    assert!(next.await.unwrap().error.is_none());
    let computed = rows(sidecar).await - before.0;
    assert!((computed - 1.0).abs() < 0.5, "{computed} rows were computed, and one was wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_caller_cancelled_are_not_computed() {
    let (_folder, sidecar) = serve_with_room().await;
    let (held, texts) = (Held::workers(&sidecar).await, texts());
    let call = tokio::spawn({
        let mut client = sidecar.embeddings().await;
        async move {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            client.embed(request(&texts)).await
        }
    });
    until("they wait", async || sidecar.metric("embark_queue_items", &[]).await > 23.5).await;
    call.abort();
    assert_computes_the_next_alone(&sidecar, held).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_deadline_has_passed_are_not_computed_and_their_caller_is_told_in_time() {
    let (_folder, sidecar) = serve_with_room().await;
    let (held, texts) = (Held::workers(&sidecar).await, texts());
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut asked = Request::new(request(&texts));
    // Long, so that a busy machine too answers before the transports' timers end the call: nothing else ends it.
    asked.set_timeout(Duration::from_secs(4));
    let refused = sidecar.embeddings().await.embed(asked).await.unwrap_err();
    if refused.code() != Code::Cancelled {
        refusal::metadata(&refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    assert_computes_the_next_alone(&sidecar, held).await;
    sidecar.stop().await;
}
