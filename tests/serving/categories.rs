//! Models of categories: ids over the wire, those that the vocabulary has and those that it does not.

use std::{fs, path::Path};

use embark_sidecar::pb::client::{
    EmbedRequest, InputKind, InvalidateRequest, Item, ItemKeys, ItemResult, Source,
    invalidate_request::Scope, item::Input,
};
use embark_tests::{
    Manifest, Sidecar, refusal,
    sidecar::{Options, items, sources},
};
use tonic::Code;

/// Twelve ids.
const IDS: [&str; 12] =
    ["a", "b", "c", "d", "e", "f", "g", "ä ö", "1", "01", "news/sport", "https://example.com/?q=1"];

#[tokio::test(flavor = "multi_thread")]
async fn an_id_has_the_row_of_its_line_and_any_other_has_row_0() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &manifest(folder.path())).await;
    let asked: Vec<&str> = IDS.iter().copied().chain(["A", "a ", "001"]).collect();
    let results = embed(&sidecar, &asked).await;
    for (at, result) in results.iter().enumerate() {
        let (row, is_unknown) = if at < IDS.len() { (at + 1, false) } else { (0, true) };
        assert_eq!(result.vector, [row as f32, 1.0], "{:?}", asked[at]);
        assert_eq!((result.unknown_category, result.tokens), (is_unknown, 0), "{:?}", asked[at]);
    }
    let model = sidecar.model("shops").await.unwrap();
    assert_eq!((model.input_kind(), model.dimensions), (InputKind::Categorical, 2));
    assert_eq!(model.limits.unwrap().max_item_bytes, 1024);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_not_known_are_one_entry_however_many_a_caller_makes_up() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &manifest(folder.path()));
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&embed(&sidecar, &["a", "unknown"]).await), [Source::Computed; 2]);
    let made_up: Vec<String> = (0..500).map(|number| format!("made up {number}")).collect();
    let made_up: Vec<&str> = made_up.iter().map(String::as_str).collect();
    let results = embed(&sidecar, &made_up).await;
    assert!(results.iter().all(|result| {
        result.source() == Source::HitMemory
            && result.unknown_category
            && result.vector == [0.0, 1.0]
    }));
    assert!((sidecar.metric("embark_cache_entries", &[]).await - 2.0).abs() < 0.5);
    assert!((sidecar.metric("embark_unknown_categories_total", &[]).await - 501.0).abs() < 0.5);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    let kept = embed(&sidecar, &["b", "another", "a"]).await;
    assert_eq!(sources(&kept), [Source::Computed, Source::HitDisk, Source::HitDisk]);
    assert_eq!([0, 1, 2].map(|at| kept[at].unknown_category), [false, true, false]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_ids_that_are_not_known_is_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &manifest(folder.path())).await;
    let found = sources(&embed(&sidecar, &["x", "y", "a", "z"]).await);
    assert_eq!(found, [Source::Computed, Source::Coalesced, Source::Computed, Source::Coalesced]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_forgotten_and_so_are_those_that_are_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let allowing = manifest(folder.path()).with("/spec/cache/allowInvalidation", true);
    let sidecar = Sidecar::serve(folder.path(), &allowing).await;
    embed(&sidecar, &["a", "b", "x"]).await;
    let keys = ItemKeys { items: vec![item("b"), item("made up")] };
    let scope = Some(Scope::Items(keys));
    let forget = InvalidateRequest { scope, ..InvalidateRequest::default() };
    sidecar.cache().await.invalidate(forget).await.unwrap();
    let after = sources(&embed(&sidecar, &["a", "b", "x"]).await);
    assert_eq!(after, [Source::HitMemory, Source::Computed, Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_out_of_bounds_is_refused_by_its_field_and_its_company_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &manifest(folder.path())).await;
    let long = "x".repeat(1025);
    for id in ["", &long] {
        let refused = sidecar.call(request(&[id])).await.unwrap_err();
        let field = "items[0].category";
        let metadata = refusal::of_field(&refused, Code::InvalidArgument, "MALFORMED", field);
        assert_eq!(metadata["allowed"], "1 to 1024 bytes of UTF-8");
        let results = embed(&sidecar, &["a", id]).await;
        assert_eq!(results[0].vector, [1.0, 1.0]);
        assert_eq!(results[1].error.as_ref().unwrap().reason, "MALFORMED");
    }
    let text = EmbedRequest { items: items(&["a"]), ..EmbedRequest::default() };
    let refused = sidecar.call(text).await.unwrap_err();
    let bad = Code::InvalidArgument;
    assert_eq!(
        refusal::of_field(&refused, bad, "ITEM_KIND", "items[0].text")["allowed"],
        "category"
    );
    sidecar.stop().await;
}

/// A model whose row n is [n, 1], and as many ids as it has rows beside row 0.
fn manifest(folder: &Path) -> Manifest {
    let file = folder.join("vocabulary.txt");
    fs::write(&file, IDS.join("\n")).unwrap();
    Manifest::of_categories("shops", folder, (&file, IDS.len() + 1))
}

async fn embed(sidecar: &Sidecar, ids: &[&str]) -> Vec<ItemResult> {
    sidecar.call(request(ids)).await.unwrap().results
}

fn request(ids: &[&str]) -> EmbedRequest {
    EmbedRequest { items: ids.iter().map(|id| item(id)).collect(), ..EmbedRequest::default() }
}

fn item(id: &str) -> Item {
    Item { input: Some(Input::Category(id.to_owned())) }
}
