//! Seeds that are no text: records of the disk tier, and messages, real ones and what a hostile caller would send.

use embark_sidecar::{
    cache::entry::{Entry, Record},
    embedding::Vector,
    fuzzing::{record_key, seal},
    pb::client::{
        CacheControl, EmbedRequest, EmbedStreamRequest, InvalidateRequest, Item, ItemKeys, Tensor,
        invalidate_request::Scope, item::Input,
    },
};
use prost::Message as _;

/// Target, name and bytes of each seed.
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let records = records().into_iter().map(|(name, bytes)| ("record_decode", name, bytes));
    let messages = messages().into_iter().chain(hostile_messages());
    records.chain(messages.map(|(name, bytes)| ("request_conversion", name, bytes))).collect()
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let entry = |values: usize| Entry {
        vector: Vector::from_values(&vec![0.125; values]),
        created_ms: 1_700_000_000_123,
        epoch: 3,
        tokens: 17,
        chunks: 2,
        truncated: true,
        unknown_category: true,
    };
    let bytes = |values| Record::Entry(entry(values)).encode(&record_key());
    let tombstone = Record::Tombstone { before_ms: 1_700_000_000_123 }.encode(&record_key());
    // A change that the checksum goes along with.
    let forged = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        seal(&mut bytes);
        bytes
    };
    let mut changed = bytes(8);
    changed[50] ^= 1;
    let of_another =
        Record::Entry(entry(8)).encode(&embark_sidecar::key::CacheKey::from_bytes([9; 32]));
    let mut longer = bytes(8);
    longer.push(0);
    seal(&mut longer);
    let mut hiding = tombstone.clone();
    hiding.extend([0; 32]);
    seal(&mut hiding);
    vec![
        ("good-entry", bytes(8)),
        ("good-entry-384", bytes(384)),
        ("good-tombstone", tombstone.clone()),
        ("bad-nothing", Vec::new()),
        ("bad-short", bytes(8)[..43].to_vec()),
        ("bad-cut", bytes(8)[..60].to_vec()),
        ("bad-magic", forged(bytes(8), 0, b'F')),
        ("bad-version", forged(bytes(8), 4, 2)),
        ("bad-flags", forged(bytes(8), 5, 0x44)),
        ("bad-checksum", changed),
        ("bad-of-another-key", of_another),
        ("bad-length", longer),
        ("bad-tombstone-with-vector", hiding),
        ("bad-tombstone-with-tokens", forged(tombstone, 24, 1)),
    ]
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let wishes = EmbedRequest {
        model: "texts".to_owned(),
        prompt: "query".to_owned(),
        dimensions: 64,
        expect_space_id: "00".repeat(32),
        wait_budget: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
        on_miss: 1,
        priority: 2,
        cache: Some(CacheControl {
            no_store: true,
            max_age: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        }),
        include_timings: true,
        ..embed(texts(2))
    };
    let data = Tensor { shape: vec![2, 3], data: vec![0; 24], ..floats(0) };
    let mixed = vec![text("fits"), text(""), Item::default(), tensor(floats(6))];
    let keys = ItemKeys { items: texts(3) };
    vec![
        ("good-text", embed(texts(1)).encode_to_vec()),
        ("good-texts-with-wishes", wishes.encode_to_vec()),
        ("good-tensor-of-floats", embed(vec![tensor(floats(6))]).encode_to_vec()),
        ("good-tensor-of-bytes", embed(vec![tensor(data)]).encode_to_vec()),
        ("good-items-that-fail-alone", embed(mixed).encode_to_vec()),
        (
            "good-stream",
            EmbedStreamRequest { id: 7, request: Some(embed(texts(2))) }.encode_to_vec(),
        ),
        (
            "good-invalidate",
            InvalidateRequest {
                model: "texts".to_owned(),
                before: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
                scope: Some(Scope::Items(keys)),
            }
            .encode_to_vec(),
        ),
    ]
}

fn hostile_messages() -> Vec<(&'static str, Vec<u8>)> {
    let contradiction = EmbedRequest {
        cache: Some(CacheControl { no_cache: true, only_if_cached: true, ..Default::default() }),
        ..embed(texts(1))
    };
    let negative = EmbedRequest {
        wait_budget: Some(prost_types::Duration { seconds: i64::MIN, nanos: -1 }),
        ..embed(texts(1))
    };
    let long_ago = |seconds, nanos| InvalidateRequest {
        before: Some(prost_types::Timestamp { seconds, nanos }),
        scope: Some(Scope::All(true)),
        ..Default::default()
    };
    let shape = Tensor { shape: vec![i64::MAX; 8_000], ..floats(6) };
    let long = embed(vec![text(&"x".repeat(1025)), text(&"ä".repeat(512))]);
    let mut cut = embed(texts(2)).encode_to_vec();
    cut.truncate(cut.len() - 3);
    let not_utf8 = [0x0a, 0x02, 0xc3, 0x28];
    vec![
        ("good-texts-too-long", long.encode_to_vec()),
        ("bad-nothing", Vec::new()),
        ("bad-contradiction", contradiction.encode_to_vec()),
        ("bad-negative-budget", negative.encode_to_vec()),
        ("bad-unknown-enum", EmbedRequest { on_miss: -1, ..embed(texts(1)) }.encode_to_vec()),
        ("bad-invalidate-long-ago", long_ago(i64::MIN, i32::MIN).encode_to_vec()),
        ("bad-invalidate-far-ahead", long_ago(i64::MAX, i32::MAX).encode_to_vec()),
        // Two bytes each on the wire, some hundred in memory.
        ("bad-many-empty-items", [0x12, 0x00].repeat(2_000)),
        ("good-items-past-one-model", embed(vec![Item::default(); 100]).encode_to_vec()),
        ("bad-shape-without-end", embed(vec![tensor(shape)]).encode_to_vec()),
        ("bad-cut", cut),
        ("bad-length-past-the-end", vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x0a]),
        ("bad-number-without-end", vec![0xff; 32]),
        // Groups in groups, of a field that is none of ours.
        ("bad-groups-in-groups", vec![0x7b; 4_096]),
        ("bad-model-not-utf8", not_utf8.to_vec()),
    ]
}

fn embed(items: Vec<Item>) -> EmbedRequest {
    EmbedRequest { items, ..Default::default() }
}

fn texts(count: usize) -> Vec<Item> {
    (0..count).map(|number| text(&format!("the text number {number}"))).collect()
}

fn text(text: &str) -> Item {
    Item { input: Some(Input::Text(text.to_owned())) }
}

fn tensor(tensor: Tensor) -> Item {
    Item { input: Some(Input::Tensor(tensor)) }
}

fn floats(count: usize) -> Tensor {
    Tensor { float_values: vec![0.5; count], ..Default::default() }
}
