//! Messages to requests: everything that can be wrong with a message is found here, and named.

mod items;
mod wishes;

use crate::{
    error::{Error, ErrorKind},
    input::Request,
    pb::server::EmbedRequest,
    served::ServedModel,
    trace::Trace,
};

pub(super) use items::items;

/// The request that a message means for `model`. Items that are wrong fail alone.
///
/// # Errors
/// What is wrong with the message as a whole.
pub(super) fn request(model: &ServedModel, message: EmbedRequest) -> Result<Request, Error> {
    let wishes = wishes::wishes(&message)?;
    count(model, message.items.len())?;
    let dimensions = (message.dimensions != 0).then_some(message.dimensions);
    Ok(Request {
        items: items(model.input(), message.items),
        prompt: filled(message.prompt),
        dimensions,
        expect_space_id: filled(message.expect_space_id),
        wishes,
        timeout: None,
        trace: Trace::default(),
    })
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

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
