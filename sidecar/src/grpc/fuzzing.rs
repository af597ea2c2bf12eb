//! What is fuzzed of the wire; see [`crate::fuzzing`].

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use embark_crds::{
    contract::{Input as Takes, OnMiss},
    manifest,
    resolve::{Target, resolve},
};
use tonic::{
    Code,
    body::Body,
    metadata::{MetadataMap, MetadataValue},
};

use super::{bounds::Bounded, cache_service, codec, deadline, status, validate};
use crate::{
    error::Error,
    fuzzing::Verdict,
    input::{self, Input, Request},
    metrics::Metrics,
    pb::server::{
        EmbedRequest, EmbedStreamRequest, InvalidateRequest, Item, invalidate_request::Scope,
        item::Input as Given,
    },
    served::ServedModel,
};

/// What a failing call's headers may take together: what the strictest clients read.
const MOST_HEADER_BYTES: usize = 8 * 1024;
/// When a call comes, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;
/// Models whose limits are easily passed: of texts and of tensors.
const MODELS: &str = r#"
apiVersion: embark.dev/v1alpha1
kind: EmbeddingModel
metadata: {name: texts}
spec:
  model: &model
    source: &file {uri: "builtin://a/b", sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
    output: {dimensions: 16384}
  input:
    text: {tokenizer: *file, sizeLimit: 1Ki}
---
apiVersion: embark.dev/v1alpha1
kind: EmbeddingModel
metadata: {name: tensors}
spec:
  model: {source: {uri: "builtin://a/b", sha256: "0000000000000000000000000000000000000000000000000000000000000000"}, output: {dimensions: 4}}
  input: {tensor: {shape: [2, 3]}}
"#;

static SERVED: LazyLock<Vec<ServedModel>> = LazyLock::new(|| {
    let models = manifest::read(MODELS).expect("they are manifests").into_iter().map(|manifest| {
        let name = &manifest.metadata.name;
        let contract = resolve(name, &manifest.spec, Target::Local).expect("they are good");
        ServedModel::new(contract, Metrics::default().model(name))
    });
    models.collect()
});

/// Bytes of a call: a message for each method that takes inputs, for models of texts and of tensors.
///
/// # Panics
/// A request is past the bounds, or something is refused in a way that a client cannot use.
pub fn request(bytes: &[u8]) -> Verdict {
    let bytes = Bytes::copy_from_slice(bytes);
    let (mut items, mut embed) = (Vec::new(), Vec::new());
    embed.extend(message::<EmbedRequest>(&bytes));
    embed.extend(message::<EmbedStreamRequest>(&bytes).and_then(|message| message.request));
    if let Some(message) = message::<InvalidateRequest>(&bytes) {
        match cache_service::before(message.before, NOW_MS) {
            Ok(before_ms) => assert!(before_ms <= NOW_MS, "nothing of the future is forgotten"),
            Err(error) => refused(&error),
        }
        if let Some(Scope::Items(keys)) = message.scope {
            items.push(keys.items);
        }
    }
    let mut verdict = Verdict::Refused;
    for model in &*SERVED {
        for message in &embed {
            if converted(model, message) == Verdict::Taken {
                verdict = Verdict::Taken;
            }
        }
        for items in &items {
            match validate::count(model, items.len()) {
                Ok(()) => {
                    fit(model, items, &validate::items(model.input(), items.clone()));
                    verdict = Verdict::Taken;
                }
                Err(error) => refused(&error),
            }
        }
    }
    verdict
}

/// The value of a call's header, beside a reading of it that looks at one byte at a time.
///
/// # Panics
/// The two differ, or it is refused in a way that a client cannot use.
pub fn grpc_timeout(bytes: &[u8]) -> Verdict {
    let Ok(value) = MetadataValue::try_from(bytes) else { return Verdict::Refused };
    let mut headers = MetadataMap::new();
    headers.insert("grpc-timeout", value);
    let expected = nanoseconds(bytes).map(|nanoseconds| {
        let margin = (nanoseconds / 20).max(2_000_000);
        nanoseconds.saturating_sub(margin)
    });
    match deadline::said(&headers) {
        Ok(said) => {
            assert_eq!(said.as_ref().map(Duration::as_nanos), expected);
            Verdict::Taken
        }
        Err(error) => {
            assert_eq!(expected, None);
            assert_eq!(error.field, "grpc-timeout");
            refused(&error);
            Verdict::Refused
        }
    }
}

/// The message that bytes are, as the server's codec has it.
fn message<M: Bounded + prost::Message + Default>(bytes: &Bytes) -> Option<M> {
    let decoded = codec::decode::<M>(bytes.clone());
    decoded.inspect_err(told).ok()
}

fn converted(model: &ServedModel, message: &EmbedRequest) -> Verdict {
    match validate::request(model, message.clone()) {
        Ok(request) => {
            assert_eq!(request.items.len(), message.items.len());
            fit(model, &message.items, &request.items);
            contradicts_nothing(&request);
            Verdict::Taken
        }
        Err(error) => {
            refused(&error);
            Verdict::Refused
        }
    }
}

/// Each input is what was given, within the model's bounds; each other item is refused by its place.
fn fit(model: &ServedModel, given: &[Item], items: &[input::Item]) {
    let serving = &model.contract.serving;
    assert!((1..=serving.max_request_items() as usize).contains(&items.len()));
    for (index, (item, given)) in items.iter().zip(given).enumerate() {
        match (item, &given.input) {
            (Ok(Input::Text(text)), Some(Given::Text(bytes))) => {
                assert!(matches!(model.input(), Takes::Text(_)));
                assert_eq!(text.as_str().as_bytes(), bytes);
                assert!((1..=serving.max_item_bytes()).contains(&(bytes.len() as u64)));
            }
            (Ok(Input::Image(image)), Some(Given::Image(bytes))) => {
                assert!(matches!(model.input(), Takes::Image(_)));
                assert_eq!(image.as_bytes(), bytes);
                assert!((1..=serving.max_item_bytes()).contains(&(bytes.len() as u64)));
            }
            (Ok(Input::Tensor(tensor)), Some(Given::Tensor(given))) => {
                assert!(matches!(model.input(), Takes::Tensor(_)));
                assert_eq!(tensor.as_bytes().len() as u64, serving.max_item_bytes());
                assert!(given.data.is_empty() != given.float_values.is_empty());
            }
            (Ok(Input::Category(category)), Some(Given::Category(id))) => {
                assert!(matches!(model.input(), Takes::Categorical(_)));
                assert_eq!(category.as_bytes(), id);
                assert!((1..=serving.max_item_bytes()).contains(&(id.len() as u64)));
            }
            (Ok(_), given) => panic!("{given:?} became something else"),
            (Err(error), _) => {
                assert!(error.field.starts_with(&format!("items[{index}]")), "{}", error.field);
                refused(error);
            }
        }
    }
}

fn contradicts_nothing(Request { wishes, dimensions, prompt, timeout, .. }: &Request) {
    assert!(!(wishes.cache.no_cache && wishes.cache.only_if_cached));
    assert!(wishes.wait_budget.is_none() || matches!(wishes.on_miss, None | Some(OnMiss::Wait)));
    assert_ne!(*dimensions, Some(0));
    assert!(prompt.as_ref().is_none_or(|prompt| !prompt.is_empty()));
    assert_eq!(*timeout, None, "it is no part of a message");
}

/// A refusal names what is wrong.
fn refused(error: &Error) {
    assert!(!error.field.is_empty(), "{error}");
    told(error);
}

/// A refusal is the caller's fault, and can be sent.
fn told(error: &Error) {
    assert!(!error.message.is_empty());
    let status = status::of(error);
    assert_eq!(status.code(), Code::InvalidArgument, "{error}");
    let answer = status.into_http::<Body>();
    let headers = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let bytes = headers.sum::<usize>();
    assert!(bytes <= MOST_HEADER_BYTES, "{bytes} bytes of headers: {error}");
}

/// What a header says, read once more.
fn nanoseconds(header: &[u8]) -> Option<u128> {
    let (unit, digits) = header.split_last()?;
    let unit = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let mut number = 0;
    for digit in digits {
        number = number * 10 + u128::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        if number > u128::from(u32::MAX) {
            return None;
        }
    }
    (1..=8).contains(&digits.len()).then_some(number * unit)
}
