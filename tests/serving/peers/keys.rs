//! Keys that tell inputs apart, and spaces that tell models apart.

use embark_sidecar::pb::client::{EmbedRequest, Item, Source, Tensor, item::Input};
use embark_tests::{
    Manifest, Sidecar, refusal,
    sidecar::{Options, difference, request, sources},
};
use tonic::Code;

use super::{SAME, anew, serve};

/// Checks that a cache that has seen none of these texts computes each of them, and keeps them apart.
async fn are_kept_apart(sidecar: &Sidecar, texts: &[&str]) {
    let right = anew(sidecar, texts).await;
    for (at, text) in texts.iter().enumerate() {
        // One after the other, so that each might be taken for one before it.
        let computed = sidecar.embed(&[text]).await;
        assert_eq!(sources(&computed), [Source::Computed], "{text:.40}");
        let apart = difference(&computed[0].vector, &right[at].vector);
        assert!(apart <= SAME, "{text:.40} differs by {apart} from itself");
    }
    for (text, right) in texts.iter().zip(&right) {
        let found = sidecar.embed(&[text]).await;
        assert_eq!(sources(&found), [Source::HitMemory], "{text:.40}");
        assert!(difference(&found[0].vector, &right.vector) <= SAME, "{text:.40}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_join_to_the_same_string_have_different_keys() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let batches: [&[&str]; 4] = [
        &["rain-sun", "snow"],
        &["rain", "sun-snow"],
        &["rain-sun-snow"],
        &["rain", "sun", "snow"],
    ];
    for batch in batches {
        let right = anew(&sidecar, batch).await;
        let found = sidecar.embed(batch).await;
        for (found, right) in found.iter().zip(&right) {
            assert!(difference(&found.vector, &right.vector) <= SAME, "{batch:?}");
        }
    }
    are_kept_apart(&sidecar, &["ab cd", "a bcd", "abcd", "ab,cd", "ab\ncd", "ab\0cd"]).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_share_a_long_beginning_have_different_keys() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let beginning = "mountains and rivers ".repeat(48);
    assert!(beginning.len() > 1000);
    let texts = ["", "sun", "rain", "sun and rain"].map(|end| format!("{beginning}{end}"));
    are_kept_apart(&sidecar, &texts.each_ref().map(String::as_str)).await;
    // Nor does it count what of a text the model reads.
    let longer = texts.each_ref().map(|text| format!("{} {text}", beginning.repeat(9)));
    are_kept_apart(&sidecar, &longer.each_ref().map(String::as_str)).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_whose_short_hashes_collide_have_different_keys() {
    let fnv = |text: &str| {
        text.bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    };
    let java = |text: &str| {
        text.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()))
    };
    let sum = |text: &str| text.bytes().map(u32::from).sum::<u32>();
    type Hash = fn(&str) -> u32;
    let hashes: [(Hash, [&str; 2]); 4] = [
        (fnv, ["costarring", "liquid"]),
        (fnv, ["declinate", "macallums"]),
        (java, ["Siblings", "Teheran"]),
        (sum, ["listen", "silent"]),
    ];
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    for (hash, pair) in hashes {
        assert_eq!(hash(pair[0]), hash(pair[1]), "{pair:?}");
        are_kept_apart(&sidecar, &pair).await;
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_says_of_itself_is_not_in_the_key() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let mut found = Vec::new();
    for id in ["one", "two", "three"] {
        let mut asked = tonic::Request::new(request(&["a text"]));
        for name in ["x-request-id", "traceparent", "user-agent-of", "authorization"] {
            asked.metadata_mut().insert(name, id.parse().unwrap());
        }
        let reply = sidecar.embeddings().await.embed(asked).await.unwrap().into_inner();
        found.extend(sources(&reply.results));
    }
    assert_eq!(found, [Source::Computed, Source::HitMemory, Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_of_the_same_values_in_another_order_have_different_keys() {
    let (_folder, sidecar) = serve(Manifest::wine("wine")).await;
    let values: [f32; 13] =
        [13.2, 1.78, 2.14, 11.2, 100.0, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050.0];
    let mut other_order = values;
    other_order.swap(1, 2);
    let mut one_bit = values;
    one_bit[12] = f32::from_bits(one_bit[12].to_bits() ^ 1);
    let tensors = [values, other_order, one_bit].map(|values| Item {
        input: Some(Input::Tensor(Tensor { float_values: values.to_vec(), ..Tensor::default() })),
    });
    for tensor in &tensors {
        let alone = EmbedRequest { items: vec![tensor.clone()], ..EmbedRequest::default() };
        assert_eq!(sources(&sidecar.call(alone).await.unwrap().results), [Source::Computed]);
    }
    let all = EmbedRequest { items: tensors.to_vec(), ..EmbedRequest::default() };
    let found = sidecar.call(all).await.unwrap().results;
    assert_eq!(sources(&found), [Source::HitMemory; 3]);
    assert!(difference(&found[0].vector, &found[1].vector) > 1e-3);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_remembers_its_space_is_refused_by_a_model_that_took_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("words"));
    let sidecar = Sidecar::start(&options).await;
    let before = sidecar.call(request(&["a text"])).await.unwrap();
    sidecar.stop().await;
    // The same name and the same length of vectors: nothing else would tell.
    let swapped = Manifest::tiny("words").with("/spec/input/text/maxTokens", 8);
    let sidecar = Sidecar::start(&options.with(&swapped)).await;
    for texts in [&["a text"][..], &["a text", "another"]] {
        let expecting = EmbedRequest { expect_space_id: before.space_id.clone(), ..request(texts) };
        let refused = sidecar.call(expecting).await.unwrap_err();
        let at = "expect_space_id";
        let metadata = refusal::of_field(&refused, Code::FailedPrecondition, "SPACE_MISMATCH", at);
        assert_eq!(metadata["value"], before.space_id);
    }
    assert!(sidecar.metric("embark_batch_items_count", &[]).await < 0.5, "something was computed");
    let after = sidecar.call(request(&["a text"])).await.unwrap();
    assert_eq!(sources(&after.results), [Source::Computed]);
    assert_ne!(after.space_id, before.space_id);
    let expecting = EmbedRequest { expect_space_id: after.space_id, ..request(&["a text"]) };
    assert_eq!(sources(&sidecar.call(expecting).await.unwrap().results), [Source::HitMemory]);
    sidecar.stop().await;
}
