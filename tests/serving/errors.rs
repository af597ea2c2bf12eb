//! Requests that are wrong: a code, a reason for programs, a sentence for people; and what is right beside them is served.

use std::fs;

use embark_sidecar::pb::{
    client::{CacheControl, EmbedRequest, Item, OnMiss, Tensor, item::Input},
    server,
};
use embark_tests::{
    Manifest, Sidecar,
    manifest::sha256,
    programs, raw, refusal,
    sidecar::{request, request_of},
};
use prost::{Message as _, bytes::Bytes};
use prost_types::Duration;
use serde_json::json;
use tonic::Code;

const BAD: Code = Code::InvalidArgument;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_wrong_as_a_whole_is_refused_by_its_field() {
    let (_folder, sidecar) = serve().await;
    let many: Vec<&str> = vec!["a"; 1025];
    let space = sidecar.space().await;
    let other_space = "0".repeat(64);
    let prompt = |name: &str| EmbedRequest { prompt: name.to_owned(), ..request(&["a"]) };
    let expecting =
        |space: &str| EmbedRequest { expect_space_id: space.to_owned(), ..request(&["a"]) };
    let dimensions = |dimensions| EmbedRequest { dimensions, ..request(&["a"]) };
    for (wrong, code, reason, [field, value, allowed]) in [
        (request(&[]), BAD, "ITEMS_EMPTY", ["items", "0", "1 to 1024"]),
        (request(&many), BAD, "TOO_MANY_ITEMS", ["items", "1025", "at most 1024"]),
        (request_of("other", &["a"]), Code::NotFound, "MODEL_UNKNOWN", ["model", "other", "tiny"]),
        (prompt("nope"), BAD, "PROMPT_UNKNOWN", ["prompt", "nope", "query, passage"]),
        (
            expecting(&other_space),
            Code::FailedPrecondition,
            "SPACE_MISMATCH",
            ["expect_space_id", &other_space, &space],
        ),
        (dimensions(129), BAD, "DIMENSIONS", ["dimensions", "129", "128"]),
        (dimensions(u32::MAX), BAD, "DIMENSIONS", ["dimensions", "4294967295", "128"]),
    ] {
        let refused = sidecar.call(wrong).await.unwrap_err();
        let metadata = refusal::of_field(&refused, code, reason, field);
        assert_eq!(metadata["value"], value);
        assert!(metadata["allowed"].contains(allowed), "{metadata:?} does not allow {allowed}");
        assert!(refused.message().contains(allowed), "{refused} does not say {allowed}");
    }
    assert!(sidecar.call(expecting(&space)).await.is_ok());
    assert_eq!(sidecar.embed(&many[..1024]).await.len(), 1024);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_wrong_fails_the_call_when_it_is_alone() {
    let (_folder, sidecar) = serve().await;
    let item = |input| EmbedRequest { items: vec![Item { input }], ..EmbedRequest::default() };
    let text = |text: &str| item(Some(Input::Text(text.to_owned())));
    let tensor = Tensor { float_values: vec![1.0], ..Tensor::default() };
    for (wrong, reason, field) in [
        (text(""), "TEXT_EMPTY", "items[0].text"),
        (text(&"x".repeat(1025)), "TEXT_TOO_LONG", "items[0].text"),
        (item(None), "ITEM_KIND", "items[0]"),
        (item(Some(Input::Image(vec![1, 2]))), "ITEM_KIND", "items[0].image"),
        (item(Some(Input::ImageUrl("http://x/".to_owned()))), "ITEM_KIND", "items[0].image_url"),
        (item(Some(Input::Tensor(tensor))), "ITEM_KIND", "items[0].tensor"),
        (item(Some(Input::Category("x".to_owned()))), "ITEM_KIND", "items[0].category"),
    ] {
        let refused = sidecar.call(wrong).await.unwrap_err();
        let metadata = refusal::of_field(&refused, BAD, reason, field);
        assert!(!metadata["allowed"].is_empty());
    }
    let longest = "x ".repeat(512);
    assert!(sidecar.embed(&[&longest]).await[0].error.is_none());
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_utf8_is_refused_by_the_item_and_its_company_is_served() {
    let (_folder, sidecar) = serve().await;
    let item = |bytes: &'static [u8]| server::Item {
        input: Some(server::item::Input::Text(Bytes::from_static(bytes))),
    };
    let message = |items| server::EmbedRequest { items, ..server::EmbedRequest::default() };
    let alone = message(vec![item(b"ab\xff\xfe")]).encode_to_vec();
    let refused = raw::embed(&sidecar, alone).await.unwrap_err();
    let metadata = refusal::of_field(&refused, BAD, "TEXT_NOT_UTF8", "items[0].text");
    assert_eq!(metadata["allowed"], "UTF-8");
    assert!(refused.message().contains("byte 2"), "{refused}");

    let mixed = message(vec![item(b"good"), item(b"\xc3\x28")]).encode_to_vec();
    let results = raw::embed(&sidecar, mixed).await.unwrap().results;
    assert_eq!(results[0].vector, sidecar.embed(&["good"]).await[0].vector);
    assert_eq!(results[1].error.as_ref().unwrap().reason, "TEXT_NOT_UTF8");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_mixed_batch_each_item_has_its_own_outcome() {
    let (_folder, sidecar) = serve().await;
    let long = "x".repeat(1025);
    let mut mixed = request(&["first", "", "last", &long]);
    mixed.items.push(Item { input: None });
    let reply = sidecar.call(mixed).await.unwrap();
    let errors: Vec<_> = reply.results.iter().map(|result| result.error.as_ref()).collect();
    assert!(errors[0].is_none() && errors[2].is_none());
    for (index, reason) in [(1, "TEXT_EMPTY"), (3, "TEXT_TOO_LONG"), (4, "ITEM_KIND")] {
        let error = errors[index].unwrap();
        assert_eq!((error.code, error.reason.as_str()), (BAD as i32, reason));
        assert!(error.message.contains(&format!("items[{index}]")), "{error:?}");
        assert_eq!(error.retry_after_ms, 0);
        assert!(reply.results[index].vector.is_empty());
        assert_eq!(reply.results[index].source, 0);
    }
    let alone = sidecar.embed_each(&["first", "last"]).await;
    assert_eq!(alone[0].vector, reply.results[0].vector);
    assert_eq!(alone[1].vector, reply.results[2].vector);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_without_tokens_is_refused_by_its_place_in_the_request() {
    let folder = tempfile::tempdir().unwrap();
    // Without special tokens a text of white space has none at all.
    let bytes =
        fs::read(programs::root().join("examples/models/tiny-static-minilm/tokenizer.json"));
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
    tokenizer["post_processor"] = serde_json::Value::Null;
    let file = folder.path().join("tokenizer.json");
    fs::write(&file, tokenizer.to_string()).unwrap();
    let source = json!({"uri": "file://tokenizer.json", "sha256": sha256(&file)});
    let manifest = Manifest::tiny("tiny").with("/spec/input/text/tokenizer", source);
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;

    let refused = sidecar.call(request(&[" \t"])).await.unwrap_err();
    refusal::of_field(&refused, BAD, "TEXT_EMPTY", "items[0].text");
    // The second and the third are equal, and computed as one.
    let results = sidecar.embed(&["good", "  ", "  "]).await;
    assert!(results[0].error.is_none());
    for index in [1, 2] {
        let error = results[index].error.as_ref().unwrap();
        assert_eq!(error.reason, "TEXT_EMPTY");
        let sentence = format!("items[{index}].text: \"  \" has no token that the model reads");
        assert_eq!(error.message, sentence);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_item_fails_with_one_code_the_call_does() {
    let (_folder, sidecar) = serve().await;
    let long = "x".repeat(1025);
    let refused = sidecar.call(request(&["", &long, ""])).await.unwrap_err();
    // The first one's reason, though the others differ.
    refusal::of_field(&refused, BAD, "TEXT_EMPTY", "items[0].text");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_contradict_each_other_are_refused() {
    let (_folder, sidecar) = serve().await;
    let second = |seconds| Some(Duration { seconds, nanos: 0 });
    let cache = |cache| EmbedRequest { cache: Some(cache), ..request(&["a"]) };
    let both = CacheControl { no_cache: true, only_if_cached: true, ..CacheControl::default() };
    let default = OnMiss::Default.into();
    for (wrong, field) in [
        (EmbedRequest { on_miss: default, wait_budget: second(1), ..request(&["a"]) }, "on_miss"),
        (EmbedRequest { wait_budget: second(-1), ..request(&["a"]) }, "wait_budget"),
        (cache(both), "cache.only_if_cached"),
        (cache(CacheControl { max_age: second(-1), ..CacheControl::default() }), "cache.max_age"),
    ] {
        let refused = sidecar.call(wrong).await.unwrap_err();
        let metadata = refusal::of_field(&refused, BAD, "MALFORMED", field);
        assert!(!metadata["value"].is_empty());
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_an_enum_does_not_have_is_refused() {
    let (_folder, sidecar) = serve().await;
    for (unknown, field) in [
        (EmbedRequest { on_miss: 99, ..request(&["a"]) }, "on_miss"),
        (EmbedRequest { on_miss: -1, ..request(&["a"]) }, "on_miss"),
        (EmbedRequest { priority: 7, ..request(&["a"]) }, "priority"),
    ] {
        let refused = sidecar.call(unknown).await.unwrap_err();
        refusal::of_field(&refused, BAD, "MALFORMED", field);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_no_message_is_the_callers_fault_and_names_the_field() {
    let (_folder, sidecar) = serve().await;
    for (bytes, part) in [
        // items, as a number
        (vec![0x10, 1], "EmbedRequest.items"),
        // items, cut short
        (vec![0x12, 5, 1], "EmbedRequest.items"),
        // model, not UTF-8
        (vec![0x0a, 1, 0xff], "EmbedRequest.model"),
        // items[0].text, as a number
        (vec![0x12, 2, 0x08, 1], "Item.input"),
        // a tag that is none
        (vec![0xff; 11], "malformed"),
    ] {
        let refused = raw::embed(&sidecar, bytes).await.unwrap_err();
        refusal::metadata(&refused, BAD, "MALFORMED");
        assert!(refused.message().contains(part), "{refused} does not name {part}");
    }
    // A field of a later version is none of these.
    let mut later = request(&["a"]).encode_to_vec();
    later.extend([0xf8, 0x07, 1]);
    assert_eq!(raw::embed(&sidecar, later).await.unwrap().results.len(), 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_million_empty_items_are_counted_before_they_take_memory() {
    let (_folder, sidecar) = serve().await;
    let before = sidecar.peak_memory();
    let refused = raw::embed(&sidecar, [0x12, 0].repeat(16_000_000)).await.unwrap_err();
    refusal::metadata(&refused, BAD, "TOO_MANY_ITEMS");
    let grown = sidecar.peak_memory() - before;
    // The frame itself, with the room that its buffer grew by.
    assert!(grown < 200 << 20, "{grown} bytes for a frame of 32 MB");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_transports_limit_is_out_of_range() {
    let (_folder, sidecar) = serve().await;
    let limits = sidecar.model("").await.unwrap().limits.unwrap();
    let limit = usize::try_from(limits.max_request_bytes).unwrap();
    assert_eq!(limit, 32 << 20);
    let refused = raw::embed(&sidecar, vec![0; limit + 1]).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(sidecar.embed(&["still here"]).await.len(), 1);
    sidecar.stop().await;
}

async fn serve() -> (tempfile::TempDir, Sidecar) {
    let folder = tempfile::tempdir().unwrap();
    let prompts = json!([{"name": "query", "prefix": "q: "}, {"name": "passage", "prefix": "p: "}]);
    let manifest = Manifest::tiny("tiny")
        .with("/spec/input/text/sizeLimit", "1Ki")
        .with("/spec/input/text/prompts", prompts);
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    (folder, sidecar)
}
