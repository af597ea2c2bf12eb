//! What callers get for what is not cached, by the model's policy and by their own wish.

use std::time::Duration;

use embark_sidecar::pb::client::{
    CacheControl, EmbedRequest, ItemResult, OnMiss, Priority, Source,
};
use embark_tests::{
    Manifest, Sidecar, refusal,
    sidecar::{Options, cosine, pass, request, until},
};
use serde_json::json;
use tonic::Code;

/// A request that computes nothing.
fn cached(text: &str) -> EmbedRequest {
    controlled(text, CacheControl { only_if_cached: true, ..CacheControl::default() })
}

fn controlled(text: &str, cache: CacheControl) -> EmbedRequest {
    EmbedRequest { cache: Some(cache), ..request(&[text]) }
}

fn missing(text: &str, on_miss: OnMiss) -> EmbedRequest {
    EmbedRequest { on_miss: on_miss.into(), ..request(&[text]) }
}

async fn serve(manifest: Manifest) -> (tempfile::TempDir, Sidecar) {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    (folder, sidecar)
}

async fn one(sidecar: &Sidecar, request: EmbedRequest) -> ItemResult {
    sidecar.call(request).await.unwrap().results.remove(0)
}

async fn until_cached(sidecar: &Sidecar, text: &str) {
    until("it is cached", async || sidecar.call(cached(text)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn default_comes_at_once_and_the_vector_later_without_another_request_to_compute() {
    let policy = Manifest::tiny("tiny").with("/spec/cache/onMiss", "ReturnDefault");
    let (_folder, sidecar) = serve(policy).await;
    let first = one(&sidecar, request(&["a text"])).await;
    assert_eq!((first.source(), first.age_ms, first.tokens), (Source::Default, 0, 0));
    assert_eq!(first.vector, vec![0.0; 128]);
    until_cached(&sidecar, "a text").await;
    let later = one(&sidecar, request(&["a text"])).await;
    assert_eq!(later.source(), Source::HitMemory);
    assert!(later.vector.iter().any(|value| *value != 0.0));
    // Who wants to wait is told the vector.
    let waited = one(&sidecar, missing("another", OnMiss::Wait)).await;
    assert_eq!(waited.source(), Source::Computed);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn default_vector_is_the_policys_cut_and_normalised_as_any_other() {
    let mut values = vec![0.0_f32; 128];
    values[..2].copy_from_slice(&[3.0, 4.0]);
    let manifest = Manifest::tiny("tiny")
        .with("/spec/cache/onMiss", "ReturnDefault")
        .with("/spec/cache/defaultVector", json!({"type": "Values", "values": values}));
    let (_folder, sidecar) = serve(manifest).await;
    let cut = EmbedRequest { dimensions: 2, ..request(&["a"]) };
    assert_eq!(one(&sidecar, cut).await.vector, [0.6, 0.8]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_is_given_and_no_default() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["a", "b", "c"]).await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    let found = one(&sidecar, missing("a", OnMiss::Default)).await;
    assert_eq!(found.source(), Source::HitDisk);
    assert_eq!(one(&sidecar, missing("b", OnMiss::Fail)).await.source(), Source::HitDisk);
    assert_eq!(one(&sidecar, cached("c")).await.source(), Source::HitDisk);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_on_a_miss_is_not_found_and_computes_nothing() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny").with("/spec/cache/onMiss", "Fail")).await;
    for request in [request(&["a"]), missing("a", OnMiss::Fail), cached("a")] {
        let refused = sidecar.call(request).await.unwrap_err();
        refusal::metadata(&refused, Code::NotFound, "MISS");
    }
    // Cached or not beside each other: an error of the item.
    let only = CacheControl { only_if_cached: true, ..CacheControl::default() };
    sidecar.call(missing("b", OnMiss::Wait)).await.unwrap();
    let mixed = EmbedRequest { cache: Some(only), ..request(&["a", "b"]) };
    let results = sidecar.call(mixed).await.unwrap().results;
    assert_eq!(results[0].error.as_ref().unwrap().reason, "MISS");
    assert_eq!(results[1].source(), Source::HitMemory);
    assert!(sidecar.metric("embark_computed_tokens_total", &["useful"]).await > 0.0);
    assert!((sidecar.metric("embark_batch_items_count", &[]).await - 1.0).abs() < 0.5);
    // What is only_if_cached beats what is to be done on a miss.
    let asks = EmbedRequest { on_miss: OnMiss::Default.into(), ..cached("c") };
    refusal::metadata(&sidecar.call(asks).await.unwrap_err(), Code::NotFound, "MISS");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_that_is_over_gives_the_default_and_the_work_goes_on() {
    let (_folder, sidecar) =
        serve(Manifest::minilm("minilm").with("/spec/cache/waitBudget", "1ms")).await;
    let texts: Vec<String> = (0..=64).map(|n| format!("{n} ").repeat(100)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let waits = EmbedRequest { on_miss: OnMiss::Wait.into(), ..request(&texts[..64]) };
    let busy = {
        let mut client = sidecar.embeddings().await;
        tokio::spawn(async move { client.embed(waits).await })
    };
    until("the model is busy", async || sidecar.metric("embark_queue_items", &[]).await > 32.0)
        .await;
    // Far behind in the line.
    assert_eq!(one(&sidecar, request(&[texts[64]])).await.source(), Source::Default);
    until_cached(&sidecar, texts[64]).await;
    // Who asks to wait without a budget waits, whatever the policy's.
    let answered = busy.await.unwrap().unwrap().into_inner();
    assert!(answered.results.iter().all(|result| result.source() == Source::Computed));
    let long = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let patient = EmbedRequest { wait_budget: long, ..request(&["b"]) };
    assert_eq!(one(&sidecar, patient).await.source(), Source::Computed);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_tighten_what_counts() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let plain = CacheControl::default();
    let source = async |request| one(&sidecar, request).await.source();
    assert_eq!(
        source(controlled("a", CacheControl { no_store: true, ..plain })).await,
        Source::Computed
    );
    assert_eq!(source(request(&["a"])).await, Source::Computed);
    assert_eq!(source(request(&["a"])).await, Source::HitMemory);
    assert_eq!(
        source(controlled("a", CacheControl { no_cache: true, ..plain })).await,
        Source::Computed
    );
    pass(Duration::from_millis(50)).await;
    let max_age = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
    let young = CacheControl { max_age: max_age(20_000_000), ..plain };
    assert_eq!(source(controlled("a", young)).await, Source::Computed);
    let any =
        CacheControl { max_age: Some(prost_types::Duration { seconds: 3600, nanos: 0 }), ..plain };
    assert_eq!(source(controlled("a", any)).await, Source::HitMemory);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn age_that_a_caller_sets_holds_on_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["a"]).await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    let young = CacheControl {
        max_age: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
        ..CacheControl::default()
    };
    assert_eq!(one(&sidecar, controlled("a", young)).await.source(), Source::Computed);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_vector_is_given_and_computed_anew_behind() {
    let manifest = Manifest::tiny("tiny")
        .with("/spec/cache/ttl", "1s")
        .with("/spec/cache/ttlJitterPercent", 0)
        .with("/spec/cache/staleWhileRevalidate", "1h");
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &manifest);
    let sidecar = Sidecar::start(&options).await;
    let first = one(&sidecar, request(&["a"])).await;
    sidecar.embed(&["on disk"]).await;
    pass(Duration::from_millis(1100)).await;
    let stale = one(&sidecar, request(&["a"])).await;
    assert_eq!(stale.source(), Source::Stale);
    assert!(stale.age_ms >= 1000 && stale.vector == first.vector, "{}", stale.age_ms);
    until("it is fresh again", async || {
        let hit = one(&sidecar, request(&["a"])).await;
        hit.source() == Source::HitMemory && hit.age_ms < stale.age_ms
    })
    .await;
    sidecar.stop().await;
    // From disk as from memory.
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(one(&sidecar, request(&["on disk"])).await.source(), Source::Stale);
    until("it is fresh again", async || {
        one(&sidecar, request(&["on disk"])).await.source() == Source::HitMemory
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_alone_warms_the_cache() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let warm = EmbedRequest { omit_vectors: true, ..missing("a", OnMiss::Default) };
    let result = one(&sidecar, warm).await;
    assert!(result.source() == Source::Default && result.vector.is_empty());
    until_cached(&sidecar, "a").await;
    sidecar.stop().await;
}

/// EmbArk's promise: what is unknown is answered at once, however busy the model is, and known later.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_answered_at_once_while_compute_is_saturated() {
    let (_folder, sidecar) = serve(Manifest::minilm("minilm")).await;
    let texts: Vec<String> = (0..64).map(|n| format!("{n} ").repeat(100)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let bulk = EmbedRequest { priority: Priority::Bulk.into(), ..request(&texts) };
    let busy = {
        let mut client = sidecar.embeddings().await;
        tokio::spawn(async move { client.embed(bulk).await })
    };
    until("the model is busy", async || sidecar.metric("embark_queue_items", &[]).await > 8.0)
        .await;
    let unknown: Vec<String> = (0..32).map(|n| format!("unknown {n}")).collect();
    for text in &unknown {
        let answer = one(&sidecar, missing(text, OnMiss::Default)).await;
        assert_eq!(answer.source(), Source::Default);
    }
    assert!(sidecar.metric("embark_queue_items", &[]).await > 0.0, "the model was not busy");
    for text in &unknown {
        until_cached(&sidecar, text).await;
    }
    let found = one(&sidecar, request(&[&unknown[0]])).await;
    assert_eq!(found.source(), Source::HitMemory);
    busy.await.unwrap().unwrap();
    let alone = one(
        &sidecar,
        controlled(&unknown[0], CacheControl { no_cache: true, ..CacheControl::default() }),
    )
    .await;
    assert!(cosine(&alone.vector, &found.vector) > 0.999_999);
    sidecar.stop().await;
}
