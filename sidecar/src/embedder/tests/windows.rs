//! Texts that are read in windows: many rows, one flight.

use embark_crds::contract::Overlong;

use super::*;
use crate::{embedder::reply::EmbeddedItem, input::Text};

/// A model whose rows have 12 tokens, of which one each is a special one before and behind.
fn chunking() -> Contract {
    let mut contract = test_support::tiny();
    let serving = &mut contract.serving;
    let text = test_support::text(serving);
    (text.overlong, text.max_tokens) = (Overlong::Chunk, 12);
    serving.output = test_support::output(2);
    serving.output.normalization = Normalization::None;
    serving.cache.mode = CacheMode::Memory;
    serving.cache.memory_bytes = 1 << 20;
    serving.batching.max_items = 1;
    serving.batching.queue_max_items = PLACES;
    contract
}

async fn fixture() -> Fixture {
    Fixture::with(chunking(), Path::new("unused")).await
}

/// A text of so many windows, of which the last is short; none opens with the word that the model is measured by.
fn text(windows: usize) -> String {
    "two ".repeat(10 + 9 * (windows - 2) + 4)
}

fn call(fixture: &Fixture, texts: &[&str]) -> BoxFuture<'static, Result<Reply, Error>> {
    let (embedder, model) = (fixture.embedder.clone(), Arc::clone(&fixture.model));
    let text = |text: &&str| Ok(Input::Text(Text::from_utf8((*text).to_owned().into()).unwrap()));
    let request = Request { items: texts.iter().map(text).collect(), ..Request::default() };
    Box::pin(async move { embedder.embed(&model, request).await })
}

async fn one(fixture: &Fixture, text: &str) -> Result<EmbeddedItem, Error> {
    timeout(SOON, call(fixture, &[text])).await.expect("an answer")?.items.remove(0)
}

#[tokio::test]
async fn the_windows_of_a_text_are_one_answer_which_is_remembered() {
    let fixture = fixture().await;
    let long = text(3);
    let item = one(&fixture, &long).await.unwrap();
    assert_eq!((item.source, item.chunks, item.truncated), (Source::Computed, 3, false));
    // Two windows share a token each with the one before.
    assert_eq!(item.tokens, 12 + 12 + 7);
    assert_eq!(fixture.gate.begun(), 3);
    let again = one(&fixture, &long).await.unwrap();
    assert_eq!((again.source, again.chunks, again.tokens), (Source::HitMemory, 3, item.tokens));
    assert_eq!(again.vector, item.vector);
    let short = one(&fixture, "two").await.unwrap();
    assert_eq!((short.chunks, short.tokens), (0, 3));
    fixture.settled().await;
}

#[tokio::test]
async fn each_window_has_a_place_and_a_cost() {
    let fixture = fixture().await;
    fixture.gate.shut();
    let mut waiting = call(&fixture, &[&text(5)]);
    assert!(poll!(waiting.as_mut()).is_pending());
    let metrics = &fixture.model.metrics.batch;
    until("one is run and four wait", || metrics.queue_items.get() == 4).await;
    assert!(metrics.queue_cost.get() >= 3 * 12);
    let free = (0..PLACES).map_while(|_| fixture.runtime().batcher.reserve(Class::Waiting, 1).ok());
    assert_eq!(free.collect::<Vec<_>>().len(), PLACES as usize - 4);
    fixture.gate.open();
    let reply = timeout(SOON, waiting).await.expect("an answer").unwrap();
    assert_eq!(reply.items[0].as_ref().unwrap().chunks, 5);
    fixture.settled().await;
}

#[tokio::test]
async fn windows_that_nobody_waits_for_any_more_are_not_computed() {
    let fixture = fixture().await;
    fixture.gate.shut();
    let mut waiting = call(&fixture, &[&text(5)]);
    assert!(poll!(waiting.as_mut()).is_pending());
    until("the first is run", || fixture.gate.begun() == 1).await;
    drop(waiting);
    fixture.gate.open();
    fixture.settled().await;
    assert_eq!(fixture.gate.begun(), 1);
    assert_eq!(fixture.runtime().cache.status().memory_entries, 0);
    // The next caller has it computed anew.
    assert_eq!(one(&fixture, &text(5)).await.unwrap().source, Source::Computed);
    assert_eq!(fixture.gate.begun(), 6);
}

#[tokio::test]
async fn a_text_whose_windows_find_no_room_fails_whole_and_gives_its_places_back() {
    let fixture = fixture().await;
    let error = one(&fixture, &text(PLACES as usize + 1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::QueueFull);
    assert!(error.retry_after.is_some());
    assert_eq!(fixture.gate.begun(), 0);
    fixture.settled().await;
    assert_eq!(one(&fixture, &text(PLACES as usize)).await.unwrap().chunks, PLACES);
}

#[tokio::test]
async fn the_first_window_that_fails_fails_the_text_and_the_others_are_not_computed() {
    let fixture = fixture().await;
    let broken = format!("two {BROKEN_WORD} {}", text(5));
    let error = one(&fixture, &broken).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFinite);
    fixture.settled().await;
    // The last window is shorter and may be run first.
    assert!(fixture.gate.begun() <= 1);
    assert_eq!(fixture.runtime().cache.status().memory_entries, 0);
}

#[tokio::test]
async fn many_callers_of_a_text_share_its_windows() {
    let fixture = fixture().await;
    fixture.gate.shut();
    let long = text(4);
    let mut callers: Vec<_> = (0..5).map(|_| call(&fixture, &[&long])).collect();
    for caller in &mut callers {
        assert!(poll!(caller.as_mut()).is_pending());
    }
    until("one is run and three wait", || fixture.model.metrics.batch.queue_items.get() == 3).await;
    // One that comes when it has begun follows too.
    callers.push(call(&fixture, &[&long]));
    assert!(poll!(callers[5].as_mut()).is_pending());
    fixture.gate.open();
    let mut sources = Vec::new();
    for caller in callers {
        let reply = timeout(SOON, caller).await.expect("an answer").unwrap();
        let item = reply.items[0].as_ref().unwrap();
        assert_eq!(item.chunks, 4);
        sources.push(item.source);
    }
    let computed = sources.iter().filter(|source| **source == Source::Computed).count();
    assert_eq!((computed, fixture.gate.begun()), (1, 4));
    fixture.settled().await;
}
