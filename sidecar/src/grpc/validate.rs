//! Messages to requests: everything that can be wrong with a message is found here, and named.

use bytes::Bytes;
use embark_crds::contract::TextInput;

use crate::{
    error::{Error, ErrorKind},
    input::{Request, Text, TextItem},
    pb::server::{CacheControl, EmbedRequest, Item, OnMiss, Priority, item::Input},
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
    if items == 0 {
        let allowed = format!("items: 0 given; 1 to {limit} are allowed");
        return Err(Error::new(ErrorKind::ItemsEmpty, allowed).about("items", "0"));
    }
    if items > limit as usize {
        let sentence = format!("items: {items} given; 1 to {limit} are allowed");
        return Err(
            Error::new(ErrorKind::TooManyItems, sentence).about("items", &items.to_string())
        );
    }
    Ok(())
}

fn text(input: &TextInput, index: usize, item: Item) -> TextItem {
    let field = |name: &str| format!("items[{index}].{name}");
    let bytes = match item.input {
        Some(Input::Text(bytes)) => bytes,
        other => {
            let given = kind(other.as_ref());
            let sentence = format!("items[{index}]: {given} given; the model takes text");
            return Err(Error::new(ErrorKind::ItemKind, sentence).about(field(given), given));
        }
    };
    if bytes.is_empty() {
        let sentence = format!("items[{index}].text: is empty; a text has at least 1 byte");
        return Err(Error::new(ErrorKind::TextEmpty, sentence).about(field("text"), ""));
    }
    if bytes.len() as u64 > input.size_limit {
        return Err(too_long(index, &bytes, input.size_limit));
    }
    Text::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let sentence = format!("items[{index}].text: is not UTF-8 from byte {at} on");
        Error::new(ErrorKind::TextNotUtf8, sentence).about(field("text"), "")
    })
}

fn too_long(index: usize, bytes: &Bytes, limit: u64) -> Error {
    let sentence = format!(
        "items[{index}].text: has {} bytes; at most {limit} are allowed (spec.input.text.sizeLimit)",
        bytes.len()
    );
    let field = format!("items[{index}].text");
    Error::new(ErrorKind::TextTooLong, sentence).about(field, &format!("{} bytes", bytes.len()))
}

fn kind(input: Option<&Input>) -> &'static str {
    match input {
        None => "nothing",
        Some(Input::Text(_)) => "text",
        Some(Input::Image(_)) => "image",
        Some(Input::ImageUrl(_)) => "image_url",
        Some(Input::Tensor(_)) => "tensor",
        Some(Input::Category(_)) => "category",
    }
}

/// Fields whose meaning is not built yet are refused, never ignored.
fn refuse_unsupported(message: &EmbedRequest) -> Result<(), Error> {
    let unsupported = |field: &str, value: &str| {
        Err(Error::of_field(ErrorKind::Unsupported, field, value, "is not supported yet"))
    };
    match OnMiss::try_from(message.on_miss) {
        Ok(OnMiss::Unspecified | OnMiss::Wait) => {}
        Ok(other) => return unsupported("on_miss", other.as_str_name()),
        Err(_) => return Err(unknown("on_miss", message.on_miss)),
    }
    match Priority::try_from(message.priority) {
        Ok(Priority::Unspecified | Priority::Interactive) => {}
        Ok(other) => return unsupported("priority", other.as_str_name()),
        Err(_) => return Err(unknown("priority", message.priority)),
    }
    if message.wait_budget.is_some() {
        return unsupported("wait_budget", "");
    }
    let plain = CacheControl::default();
    if message.cache.as_ref().is_some_and(|cache| *cache != plain) {
        return unsupported("cache", "");
    }
    Ok(())
}

fn unknown(field: &str, value: i32) -> Error {
    Error::of_field(ErrorKind::Malformed, field, &value.to_string(), "is not a value of the enum")
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
