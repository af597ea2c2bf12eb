//! Many callers of one key, and callers who do not stay.

use embark_sidecar::pb::client::{CacheControl, EmbedRequest, Priority, Source};
use embark_tests::{
    Manifest, Sidecar,
    random::Random,
    sidecar::{difference, request, sources, until},
};
use tokio::task::JoinSet;

/// Texts that keep the model busy for a while, in the background.
async fn keep_busy(sidecar: &Sidecar, texts: usize) -> JoinSet<()> {
    let texts: Vec<String> = (0..texts).map(|n| format!("busy {n} ").repeat(60)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let bulk = EmbedRequest { priority: Priority::Bulk.into(), ..request(&texts) };
    let mut client = sidecar.embeddings().await;
    let mut busy = JoinSet::new();
    busy.spawn(async move { drop(client.embed(bulk).await.unwrap()) });
    until("the model is busy", async || sidecar.metric("embark_queue_items", &[]).await > 4.0)
        .await;
    busy
}

/// A stampede on a cold key (peers' servers compute it once for each caller).
#[tokio::test(flavor = "multi_thread")]
async fn callers_of_a_cold_key_share_one_computation() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    let busy = keep_busy(&sidecar, 32).await;
    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let mut client = sidecar.embeddings().await;
        calls
            .spawn(async move { client.embed(request(&["the same"])).await.unwrap().into_inner() });
    }
    let mut found = Vec::new();
    while let Some(reply) = calls.join_next().await {
        found.push(reply.unwrap().results.remove(0));
    }
    let computed = found.iter().filter(|result| result.source() == Source::Computed).count();
    assert_eq!(computed, 1);
    for result in &found {
        let shared =
            [Source::Computed, Source::Coalesced, Source::HitMemory].contains(&result.source());
        assert!(shared && result.vector == found[0].vector, "{:?}", result.source());
    }
    busy.join_all().await;
    assert!((sidecar.metric("embark_items_total", &["\"computed\""]).await - 33.0).abs() < 0.5);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_items_of_a_batch_are_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let results = sidecar.embed(&["a", "b", "a", "a"]).await;
    let expected = [Source::Computed, Source::Computed, Source::Coalesced, Source::Coalesced];
    assert_eq!(sources(&results), expected);
    assert_eq!(results[0].vector, results[3].vector);
    let anew = CacheControl { no_cache: true, ..CacheControl::default() };
    let again = EmbedRequest { cache: Some(anew), ..request(&["a", "a"]) };
    let results = sidecar.call(again).await.unwrap().results;
    assert_eq!(sources(&results), [Source::Computed, Source::Coalesced]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_any_more_is_not_computed() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    let texts: Vec<String> = (0..256).map(|n| format!("left {n} ").repeat(60)).collect();
    let mut client = sidecar.embeddings().await;
    let call = tokio::spawn(async move {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        drop(client.embed(request(&texts)).await);
    });
    until("they wait", async || sidecar.metric("embark_queue_items", &[]).await > 100.0).await;
    call.abort();
    until("nothing waits", async || sidecar.metric("embark_queue_items", &[]).await < 0.5).await;
    let dropped = sidecar.metric("embark_cancelled_before_compute_total", &[]).await;
    assert!(dropped > 50.0, "{dropped} of 256 were dropped");
    // Nothing of it is left: the next caller leads.
    assert_eq!(sources(&sidecar.embed(&["another"]).await), [Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_wait_go_before_bulk() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    let busy = keep_busy(&sidecar, 128).await;
    assert_eq!(sources(&sidecar.embed(&["soon"]).await), [Source::Computed]);
    // The bulk request is far from its end.
    assert!(sidecar.metric("embark_queue_items", &[]).await > 4.0);
    // Also one that it has asked for itself.
    let late = "busy 127 ".repeat(60);
    let source = sources(&sidecar.embed(&[&late]).await)[0];
    assert!(source == Source::Computed, "{source:?}");
    assert!(sidecar.metric("embark_queue_items", &[]).await > 4.0);
    busy.join_all().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_callers_are_all_answered_and_each_gets_its_own_vector() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let texts: Vec<String> = (0..40).map(|n| format!("text number {n}")).collect();
    let mut expected = Vec::new();
    let plain = CacheControl { no_store: true, no_cache: true, ..CacheControl::default() };
    for text in &texts {
        let alone = EmbedRequest { cache: Some(plain), ..request(&[text]) };
        expected.push(sidecar.call(alone).await.unwrap().results.remove(0).vector);
    }
    let mut dice = Random::new(7);
    let mut calls = JoinSet::new();
    for _ in 0..400 {
        let mut client = sidecar.embeddings().await;
        let chosen: Vec<usize> = (0..=dice.index(8)).map(|_| dice.index(40)).collect();
        let items: Vec<&str> = chosen.iter().map(|n| texts[*n].as_str()).collect();
        let cache = CacheControl {
            no_cache: dice.index(4) == 0,
            no_store: dice.index(4) == 0,
            ..CacheControl::default()
        };
        let leaves = dice.index(5) == 0;
        let asked = EmbedRequest { cache: Some(cache), ..request(&items) };
        calls.spawn(async move {
            if leaves {
                // At any of its steps.
                let call = std::pin::pin!(client.embed(asked));
                let _ = tokio::time::timeout(std::time::Duration::from_micros(300), call).await;
                return None;
            }
            Some((chosen, client.embed(asked).await.unwrap().into_inner()))
        });
    }
    while let Some(answer) = calls.join_next().await {
        let Some((chosen, reply)) = answer.unwrap() else { continue };
        for (number, result) in chosen.into_iter().zip(reply.results) {
            assert!(result.error.is_none(), "{:?}", result.error);
            let apart = difference(&result.vector, &expected[number]);
            assert!(apart < 1e-6, "text {number} differs by {apart}");
        }
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_model_says_how_much_waits_and_how_long() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::minilm("minilm")).await;
    let idle = sidecar.metric("embark_saturation_ratio", &[]).await;
    assert!(idle < 0.01, "{idle}");
    let busy = keep_busy(&sidecar, 128).await;
    // Between two runs a worker runs none.
    until("it says so", async || {
        let queue = sidecar.model_status("minilm").await["queue"].clone();
        let some = |field: &str, least| queue[field].as_u64() > Some(least);
        some("running", 0) && some("waitMs", 0) && some("flights", 1)
    })
    .await;
    until("all compute, and more waits", async || {
        sidecar.metric("embark_saturation_ratio", &[]).await > 1.0
    })
    .await;
    busy.join_all().await;
    for total in ["embark_queue_wait_seconds_total", "embark_worker_busy_seconds_total"] {
        assert!(sidecar.metric(total, &[]).await > 0.0, "{total}");
    }
    let over = async || sidecar.metric("embark_flights", &[]).await < 0.5;
    until("nothing is under way", over).await;
    sidecar.stop().await;
}
