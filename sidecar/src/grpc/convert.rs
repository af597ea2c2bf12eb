//! Domain values to messages.

use std::time::Duration;

use bytes::Bytes;
use embark_crds::contract::{self, Input};

use super::status;
use crate::{
    embedder::{EmbeddedItem, Reply, Timings},
    error::Error,
    input::URL_FIELD,
    metrics::Source,
    model::{image::IMAGE_FIELD, load::State, tokenizer::TEXT_FIELD},
    pb::server as pb,
    served::ServedModel,
};

/// What of a reply a caller wants beside the vectors, or instead of them.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) vectors: bool,
    pub(super) timings: bool,
}

/// The message of a reply.
///
/// # Errors
/// The first item's failure, when every item failed with its code.
pub(super) fn reply(
    model: &ServedModel,
    mut reply: Reply,
    wanted: Wanted,
) -> Result<pb::EmbedResponse, Error> {
    place_failures(&mut reply);
    if let Some(error) = common_failure(&reply) {
        return Err(error.clone());
    }
    let results = reply.items.into_iter().map(|item| result(item, wanted.vectors)).collect();
    Ok(pb::EmbedResponse {
        space_id: model.spelled.space_id.clone(),
        model_digest: model.spelled.model_digest.clone(),
        dimensions: reply.dimensions,
        results,
        timings: wanted.timings.then(|| timings(&reply.timings)),
    })
}

/// Below the edge a text or an image does not know its place in the request; the failure that leaves names it.
fn place_failures(reply: &mut Reply) {
    for (index, item) in reply.items.iter_mut().enumerate() {
        if let Err(error) = item
            && [TEXT_FIELD, IMAGE_FIELD, URL_FIELD].contains(&error.field.as_str())
        {
            *error = error.clone().below(&format!("items[{index}]"));
        }
    }
}

fn common_failure(reply: &Reply) -> Option<&Error> {
    let first = reply.items.first()?.as_ref().err()?;
    let code = status::code(first.kind);
    let same = |item: &Result<EmbeddedItem, Error>| {
        item.as_ref().is_err_and(|error| status::code(error.kind) == code)
    };
    reply.items.iter().all(same).then_some(first)
}

fn result(item: Result<EmbeddedItem, Error>, with_vector: bool) -> pb::ItemResult {
    match item {
        Ok(item) => pb::ItemResult {
            vector: if with_vector { item.vector.into_bytes() } else { Bytes::new() },
            source: source(item.source).into(),
            age_ms: item.age_ms,
            tokens: item.tokens,
            truncated: item.truncated,
            chunks: item.chunks,
            unknown_category: item.unknown_category,
            ..Default::default()
        },
        Err(error) => pb::ItemResult { error: Some(item_error(&error)), ..Default::default() },
    }
}

pub(super) fn item_error(error: &Error) -> pb::ItemError {
    pb::ItemError {
        code: status::code(error.kind).into(),
        reason: error.kind.reason().to_owned(),
        message: error.message.clone(),
        retry_after_ms: status::retry_after(error).map_or(0, status::milliseconds),
    }
}

fn source(source: Source) -> pb::Source {
    match source {
        Source::HitMemory => pb::Source::HitMemory,
        Source::HitDisk => pb::Source::HitDisk,
        Source::Computed => pb::Source::Computed,
        Source::Coalesced => pb::Source::Coalesced,
        Source::Stale => pb::Source::Stale,
        Source::Default => pb::Source::Default,
    }
}

fn timings(timings: &Timings) -> pb::Timings {
    pb::Timings {
        total_us: microseconds(timings.total),
        lookup_us: microseconds(timings.lookup),
        disk_us: microseconds(timings.disk),
        preprocess_us: microseconds(timings.preprocess),
        queue_us: microseconds(timings.queue),
        inference_us: microseconds(timings.inference),
    }
}

/// What is said of a model.
pub(super) fn model(model: &ServedModel) -> pb::Model {
    let (serving, policy) = (&model.contract.serving, &model.policy.load().cache);
    let progress = model.progress().borrow().clone();
    let (prompts, default_prompt) = model.prompts();
    pb::Model {
        name: serving.name.clone(),
        state: state(progress.state).into(),
        message: progress.message,
        space_id: model.space.to_string(),
        model_digest: serving.model.sha256.to_string(),
        dimensions: serving.output.dimensions.get(),
        normalized: serving.output.normalization == contract::Normalization::L2,
        input_kind: input_kind(&serving.input).into(),
        prompts: prompts.iter().map(|prompt| prompt.name.clone()).collect(),
        default_prompt: default_prompt.unwrap_or_default().to_owned(),
        max_tokens: match &serving.input {
            Input::Text(text) => text.max_tokens,
            _ => 0,
        },
        on_miss: on_miss(policy.on_miss).into(),
        ttl: prost_types::Duration::try_from(policy.ttl).ok(),
        limits: Some(pb::Limits {
            max_items: serving.max_request_items(),
            max_item_bytes: serving.max_item_bytes(),
            max_request_bytes: serving.max_request_bytes(),
        }),
    }
}

fn state(state: State) -> pb::ModelState {
    match state {
        State::Pending => pb::ModelState::Pending,
        State::Fetching { .. } => pb::ModelState::Fetching,
        State::Verifying => pb::ModelState::Verifying,
        State::Loading => pb::ModelState::Loading,
        State::Warming => pb::ModelState::Warming,
        State::SelfTest => pb::ModelState::SelfTest,
        State::Ready => pb::ModelState::Ready,
        State::Failed => pb::ModelState::Failed,
    }
}

fn input_kind(input: &Input) -> pb::InputKind {
    match input {
        Input::Text(_) => pb::InputKind::Text,
        Input::Image(_) => pb::InputKind::Image,
        Input::Tensor(_) => pb::InputKind::Tensor,
        Input::Categorical(_) => pb::InputKind::Categorical,
    }
}

fn on_miss(on_miss: contract::OnMiss) -> pb::OnMiss {
    match on_miss {
        contract::OnMiss::Wait => pb::OnMiss::Wait,
        contract::OnMiss::ReturnDefault => pb::OnMiss::Default,
        contract::OnMiss::Fail => pb::OnMiss::Fail,
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
