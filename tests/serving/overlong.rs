//! Texts of more tokens than a model reads: refused, or read in windows. What their vectors are stands in kinds.rs.

use std::sync::Arc;

use embark_sidecar::pb::client::{EmbedRequest, Source};
use embark_tests::{
    Manifest, Sidecar, refusal,
    sidecar::{Options, cosine, request, sources},
};
use tokio::task::JoinSet;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_too_many_tokens_is_refused_with_both_numbers_and_its_company_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let rejecting = of("Reject", 8);
    let sidecar = Sidecar::serve(folder.path(), &rejecting).await;
    // Six tokens and two special ones, and one more.
    let (fits, long) = ("The weather is lovely today.", "The weather is lovely today. No.");
    let results = sidecar.embed(&[fits, long]).await;
    assert_eq!((results[0].tokens, results[0].truncated, results[0].chunks), (8, false, 0));
    let error = results[1].error.as_ref().unwrap();
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::InvalidArgument as i32, "TEXT_TOO_LONG")
    );
    let expected = "items[1].text: has 10 tokens, special ones included; at most 8 are allowed (spec.input.text.maxTokens)";
    assert_eq!(error.message, expected);

    let refused = sidecar.call(request(&[long])).await.unwrap_err();
    let metadata =
        refusal::of_field(&refused, Code::InvalidArgument, "TEXT_TOO_LONG", "items[0].text");
    assert_eq!((&*metadata["value"], &*metadata["allowed"]), ("10 tokens", "at most 8 tokens"));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_one_entry_that_says_of_how_many_windows_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &of("Chunk", 16));
    let sidecar = Sidecar::start(&options).await;
    let long = "The weather is lovely today, said the driver of the bus. ".repeat(6);
    let first = sidecar.embed(&["Rain.", &long]).await;
    assert_eq!((first[0].chunks, first[0].tokens), (0, 4));
    let (chunks, tokens) = (first[1].chunks, first[1].tokens);
    // 13 tokens a sentence; windows hold 14, of which 13 are new.
    assert_eq!((chunks, first[1].truncated), (6, false));
    assert!(tokens > 72 && tokens <= 16 * chunks, "{tokens} tokens");
    let length: f32 = first[1].vector.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-4, "its length is {length}");
    assert!((sidecar.metric("embark_cache_entries", &[]).await - 2.0).abs() < 0.5);
    // Its windows are rows like any others: all of their tokens are counted, and nothing else.
    let useful = sidecar.metric("embark_computed_tokens_total", &["\"useful\""]).await;
    assert!((useful - f64::from(tokens + 4)).abs() < 0.5, "{useful} tokens were computed");
    let again = sidecar.embed(&[&long]).await;
    assert_eq!(sources(&again), [Source::HitMemory]);
    assert_eq!(
        (again[0].chunks, again[0].tokens, &again[0].vector),
        (chunks, tokens, &first[1].vector)
    );
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    let kept = sidecar.embed(&[&long]).await;
    assert_eq!(sources(&kept), [Source::HitDisk]);
    assert_eq!(
        (kept[0].chunks, kept[0].tokens, &kept[0].vector),
        (chunks, tokens, &first[1].vector)
    );
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_one_long_text_have_its_windows_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let chunking = Manifest::minilm("minilm")
        .with("/spec/input/text/overlong", "Chunk")
        .with("/spec/input/text/maxTokens", 64);
    let sidecar = Arc::new(Sidecar::serve(folder.path(), &chunking).await);
    let long: Arc<str> = "Nobody has ever asked the dog about it. ".repeat(60).into();
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (sidecar, long) = (Arc::clone(&sidecar), Arc::clone(&long));
        callers.spawn(async move { sidecar.embed(&[&long]).await.remove(0) });
    }
    let results = callers.join_all().await;
    assert!(results.iter().all(|result| result.vector == results[0].vector && result.chunks > 8));
    let computed = results.iter().filter(|result| result.source() == Source::Computed);
    assert_eq!(computed.count(), 1);
    let useful = sidecar.metric("embark_computed_tokens_total", &["\"useful\""]).await;
    assert!((useful - f64::from(results[0].tokens)).abs() < 0.5, "{useful} tokens were computed");
    Arc::into_inner(sidecar).expect("the callers are done").stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_beyond_the_last_window_says_that_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &of("Chunk", 16)).await;
    let long = "one two three four ".repeat(2_000);
    let result = sidecar.embed(&[&long]).await.remove(0);
    assert_eq!((result.chunks, result.truncated, result.tokens), (64, true, 1024));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_has_no_vector_fails_the_text_which_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::poisonous("poisonous", folder.path(), (8, 16))
        .with("/spec/input/text/overlong", "Chunk")
        .with("/spec/input/text/maxTokens", 16);
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let (good, before) = ("one two three four ".repeat(20), "one two three four ".repeat(10));
    for word in [embark_tests::manifest::NOT_FINITE, embark_tests::manifest::PANICS] {
        let bad = format!("{before}{word} {before}");
        for _ in 0..2 {
            let results =
                sidecar.call(EmbedRequest { ..request(&[&bad, &good]) }).await.unwrap().results;
            let reason = results[0].error.as_ref().unwrap().reason.as_str();
            assert!(["NOT_FINITE", "WORKER_LOST", "INFERENCE"].contains(&reason), "{reason}");
            assert!(results[1].chunks > 4 && results[1].error.is_none(), "{:?}", results[1].error);
        }
    }
    assert!((sidecar.metric("embark_cache_entries", &[]).await - 1.0).abs() < 0.5);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_near_the_texts_that_it_is_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &of("Chunk", 32)).await;
    let weather = "The weather is lovely today, and it will be sunny outside tomorrow. ".repeat(8);
    let results = sidecar
        .embed(&[&weather, "sunny weather tomorrow", "The parliament voted on a law of taxes."])
        .await;
    assert!(results[0].chunks > 2);
    let near = cosine(&results[0].vector, &results[1].vector);
    let far = cosine(&results[0].vector, &results[2].vector);
    assert!(near > far + 0.2, "{near} and {far}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_queue_that_could_never_hold_the_windows_of_a_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = of("Chunk", 16).with("/spec/batching/queue/maxItems", 100);
    let ended = Sidecar::fail(&Options::new(folder.path(), &manifest)).await;
    let expected = "spec.batching.queue.maxItems: 100; with overlong: Chunk a text has up to 64 rows of 16 tokens, for \
                    which at least 128 is needed";
    let sentences = ended.sentences();
    assert!(sentences.len() == 1 && sentences[0].ends_with(expected), "{sentences:?}");
}

fn of(overlong: &str, max_tokens: u32) -> Manifest {
    Manifest::tiny("tiny")
        .with("/spec/input/text/overlong", overlong)
        .with("/spec/input/text/maxTokens", max_tokens)
}
