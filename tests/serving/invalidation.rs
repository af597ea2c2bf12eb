//! Callers make the process forget, where the model allows it.

use embark_sidecar::{
    clock::{Clock as _, SystemClock},
    pb::client::{
        EmbedRequest, InvalidateRequest, InvalidateResponse, Item, ItemKeys, Source,
        invalidate_request::Scope, item::Input,
    },
};
use embark_tests::{
    Manifest, Sidecar, refusal,
    sidecar::{Options, items, request, sources, until},
};
use prost_types::Timestamp;
use serde_json::json;
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_allow_it_refuses_and_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    sidecar.embed(&["a"]).await;
    let refused = forget(&sidecar, all()).await.unwrap_err();
    refusal::metadata(&refused, Code::PermissionDenied, "INVALIDATION_OFF");
    assert!(refused.message().contains("spec.cache.allowInvalidation"), "{refused}");
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_forgets_both_tiers_and_says_when_and_who() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &allowing());
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["a", "b"]).await;
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitDisk]);
    let earliest = now_ms();
    let answer = forget(&sidecar, all()).await.unwrap();
    let applied = milliseconds(answer.before.unwrap());
    assert!((earliest..=now_ms()).contains(&applied), "{applied} is not the time of the call");
    assert_eq!(answer.instance, sidecar.status().await["instance"].as_str().unwrap());
    assert!(!answer.instance.is_empty());
    until("the clock has passed the invalidation", async || now_ms() > applied).await;
    assert_eq!(sources(&sidecar.embed(&["a", "b"]).await), [Source::Computed; 2]);
    assert_eq!(sources(&sidecar.embed(&["a", "b"]).await), [Source::HitMemory; 2]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["a", "b"]).await), [Source::HitDisk; 2]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_forgotten_under_every_prompt_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let prompts =
        json!([{"name": "query", "prefix": "query: "}, {"name": "passage", "prefix": "p: "}]);
    let sidecar =
        Sidecar::serve(folder.path(), &allowing().with("/spec/input/text/prompts", prompts)).await;
    let ask = async |prompt: &str| {
        let of = EmbedRequest { prompt: prompt.to_owned(), ..request(&["a", "kept"]) };
        sources(&sidecar.call(of).await.unwrap().results)
    };
    for prompt in ["", "query", "passage"] {
        assert_eq!(ask(prompt).await, [Source::Computed; 2]);
    }
    let applied = milliseconds(forget(&sidecar, of_texts(&["a"])).await.unwrap().before.unwrap());
    until("the clock has passed the invalidation", async || now_ms() > applied).await;
    for prompt in ["", "query", "passage"] {
        assert_eq!(ask(prompt).await, [Source::Computed, Source::HitMemory]);
        assert_eq!(ask(prompt).await, [Source::HitMemory; 2]);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_began_at_or_before_the_given_time_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &allowing()).await;
    sidecar.embed(&["old", "older"]).await;
    let between = now_ms();
    until("the clock has passed the time", async || now_ms() > between).await;
    sidecar.embed(&["new"]).await;

    let answer = forget(
        &sidecar,
        InvalidateRequest { before: timestamp(between), ..of_texts(&["old", "new"]) },
    );
    assert_eq!(milliseconds(answer.await.unwrap().before.unwrap()), between);
    let after = sidecar.embed(&["old", "older", "new"]).await;
    assert_eq!(sources(&after), [Source::Computed, Source::HitMemory, Source::HitMemory]);

    forget(&sidecar, InvalidateRequest { before: timestamp(between), ..all() }).await.unwrap();
    let after = sidecar.embed(&["old", "older", "new"]).await;
    assert_eq!(sources(&after), [Source::HitMemory, Source::Computed, Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_survives_a_restart_and_a_kill() {
    for (scope, forgotten) in [(all(), 2), (of_texts(&["a"]), 1)] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path(), &allowing());
        let sidecar = Sidecar::start(&options).await;
        sidecar.embed(&["a", "b"]).await;
        sidecar.stop().await;

        let sidecar = Sidecar::start(&options).await;
        forget(&sidecar, scope.clone()).await.unwrap();
        sidecar.stop().await;

        // Not asked for meanwhile: what a restart brings back is what the first process computed.
        let sidecar = Sidecar::start(&options).await;
        let after = sidecar.embed(&["a", "b"]).await;
        let expected =
            [Source::Computed, if forgotten == 2 { Source::Computed } else { Source::HitDisk }];
        assert_eq!(sources(&after), expected);
        sidecar.stop().await;

        let sidecar = Sidecar::start(&options).await;
        assert_eq!(sources(&sidecar.embed(&["a", "b"]).await), [Source::HitDisk; 2]);
        forget(&sidecar, scope).await.unwrap();
        sidecar.kill().await;

        let sidecar = Sidecar::start(&options).await;
        let after = sources(&sidecar.embed(&["a", "b"]).await);
        assert_eq!(after[..forgotten], [Source::Computed; 2][..forgotten]);
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_wrong_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &allowing()).await;
    sidecar.embed(&["a"]).await;
    let bad = Code::InvalidArgument;
    let future = InvalidateRequest { before: timestamp(now_ms() + 60_000), ..all() };
    let none = InvalidateRequest { scope: None, ..all() };
    let not_all = InvalidateRequest { scope: Some(Scope::All(false)), ..all() };
    let elsewhere = InvalidateRequest { model: "other".to_owned(), ..all() };
    let mut half = of_texts(&["a", ""]);
    let mut image = of_texts(&["a"]);
    if let Some(Scope::Items(keys)) = &mut image.scope {
        keys.items.push(Item { input: Some(Input::Image(vec![1])) });
    }
    half.model = "tiny".to_owned();
    for (wrong, code, reason, field) in [
        (future, bad, "MALFORMED", "before"),
        (none, bad, "MALFORMED", "scope"),
        (not_all, bad, "MALFORMED", "all"),
        (elsewhere, Code::NotFound, "MODEL_UNKNOWN", "model"),
        (of_texts(&[]), bad, "ITEMS_EMPTY", "items"),
        (half, bad, "TEXT_EMPTY", "items[1].text"),
        (image, bad, "ITEM_KIND", "items[1].image"),
    ] {
        let refused = forget(&sidecar, wrong).await.unwrap_err();
        refusal::of_field(&refused, code, reason, field);
    }
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_cache_has_nothing_to_forget_and_says_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar =
        Sidecar::serve(folder.path(), &allowing().with("/spec/cache/mode", "Disabled")).await;
    forget(&sidecar, all()).await.unwrap();
    forget(&sidecar, of_texts(&["a"])).await.unwrap();
    sidecar.stop().await;
}

fn allowing() -> Manifest {
    Manifest::tiny("tiny").with("/spec/cache/allowInvalidation", true)
}

async fn forget(
    sidecar: &Sidecar,
    request: InvalidateRequest,
) -> Result<InvalidateResponse, Status> {
    Ok(sidecar.cache().await.invalidate(request).await?.into_inner())
}

fn all() -> InvalidateRequest {
    InvalidateRequest { scope: Some(Scope::All(true)), ..InvalidateRequest::default() }
}

fn of_texts(texts: &[&str]) -> InvalidateRequest {
    let keys = ItemKeys { items: items(texts) };
    InvalidateRequest { scope: Some(Scope::Items(keys)), ..InvalidateRequest::default() }
}

fn now_ms() -> u64 {
    SystemClock.now_ms()
}

fn timestamp(ms: u64) -> Option<Timestamp> {
    Some((std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)).into())
}

fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.seconds).unwrap() * 1000 + u64::try_from(time.nanos).unwrap() / 1_000_000
}
