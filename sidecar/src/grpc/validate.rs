//! Messages to requests: everything that can be wrong with a message is found here, and named.

use bytes::Bytes;
use embark_crds::contract::TextInput;

use crate::{
    error::{Error, ErrorKind},
    input::{Request, Text, TextItem},
    pb::server::{EmbedRequest, Item, OnMiss, Priority, item::Input},
    served::ServedModel,
};

/// The request that a message means for `model`. Items that are wrong fail alone.
///
/// # Errors
/// What is wrong with the message as a whole.
pub(super) fn request(model: &ServedModel, message: EmbedRequest) -> Result<Request, Error> {
    refuse_unsupported(&message)?;
    let input = model.text_input()?;
    count(model, message.items.len())?;
    let dimensions = (message.dimensions != 0).then_some(message.dimensions);
    Ok(Request {
        texts: items(input, message.items),
        prompt: filled(message.prompt),
        dimensions,
        expect_space_id: filled(message.expect_space_id),
    })
}

/// The texts of items, each by itself.
pub(super) fn items(input: &TextInput, items: Vec<Item>) -> Vec<TextItem> {
    items.into_iter().enumerate().map(|(index, item)| text(input, index, item)).collect()
}

/// Fails for no items, or more than the model's limit.
pub(super) fn count(model: &ServedModel, items: usize) -> Result<(), Error> {
    let limit = model.contract.serving.max_request_items();
    let kind = match items {
        0 => ErrorKind::ItemsEmpty,
        _ if items > limit as usize => ErrorKind::TooManyItems,
        _ => return Ok(()),
    };
    let sentence = format!("items: {items} given; 1 to {limit} are allowed");
    let error = Error::new(kind, sentence).about("items", &items.to_string());
    Err(error.allowing(format!("1 to {limit}")))
}

fn text(input: &TextInput, index: usize, item: Item) -> TextItem {
    let bytes = match item.input {
        Some(Input::Text(bytes)) => bytes,
        other => return Err(not_text(index, other.as_ref())),
    };
    let field = format!("items[{index}].text");
    if bytes.is_empty() {
        let sentence = format!("{field}: is empty; a text has at least 1 byte");
        let error = Error::new(ErrorKind::TextEmpty, sentence).about(field, "");
        return Err(error.allowing("at least 1 byte"));
    }
    if bytes.len() as u64 > input.size_limit {
        return Err(too_long(field, &bytes, input.size_limit));
    }
    Text::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let sentence = format!("{field}: is not UTF-8 from byte {at} on");
        Error::new(ErrorKind::TextNotUtf8, sentence).about(field, "").allowing("UTF-8")
    })
}

fn not_text(index: usize, given: Option<&Input>) -> Error {
    let (field, given) = match given.map(kind) {
        Some(kind) => (format!("items[{index}].{kind}"), kind),
        None => (format!("items[{index}]"), "nothing"),
    };
    let sentence = format!("{field}: {given} given; the model takes text");
    Error::new(ErrorKind::ItemKind, sentence).about(field, given).allowing("text")
}

fn too_long(field: String, bytes: &Bytes, limit: u64) -> Error {
    let length = format!("{} bytes", bytes.len());
    let sentence =
        format!("{field}: has {length}; at most {limit} are allowed (spec.input.text.sizeLimit)");
    let error = Error::new(ErrorKind::TextTooLong, sentence).about(field, &length);
    error.allowing(format!("at most {limit} bytes"))
}

fn kind(input: &Input) -> &'static str {
    match input {
        Input::Text(_) => "text",
        Input::Image(_) => "image",
        Input::ImageUrl(_) => "image_url",
        Input::Tensor(_) => "tensor",
        Input::Category(_) => "category",
    }
}

/// Fields whose meaning is not built yet are refused, never ignored.
fn refuse_unsupported(message: &EmbedRequest) -> Result<(), Error> {
    match OnMiss::try_from(message.on_miss) {
        Ok(OnMiss::Unspecified | OnMiss::Wait) => {}
        Ok(other) => return Err(unsupported("on_miss", other.as_str_name())),
        Err(_) => return Err(unknown("on_miss", message.on_miss)),
    }
    match Priority::try_from(message.priority) {
        Ok(Priority::Unspecified | Priority::Interactive) => {}
        Ok(other) => return Err(unsupported("priority", other.as_str_name())),
        Err(_) => return Err(unknown("priority", message.priority)),
    }
    if let Some(budget) = message.wait_budget {
        return Err(unsupported("wait_budget", &budget.to_string()));
    }
    let cache = message.cache.unwrap_or_default();
    let asked = [
        ("cache.no_cache", cache.no_cache),
        ("cache.no_store", cache.no_store),
        ("cache.only_if_cached", cache.only_if_cached),
    ];
    if let Some((field, _)) = asked.into_iter().find(|(_, asked)| *asked) {
        return Err(unsupported(field, "true"));
    }
    match cache.max_age {
        Some(age) => Err(unsupported("cache.max_age", &age.to_string())),
        None => Ok(()),
    }
}

fn unsupported(field: &str, value: &str) -> Error {
    Error::of_field(ErrorKind::Unsupported, field, value, "is not supported yet")
}

fn unknown(field: &str, value: i32) -> Error {
    Error::of_field(ErrorKind::Malformed, field, &value.to_string(), "is not a value of the enum")
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
