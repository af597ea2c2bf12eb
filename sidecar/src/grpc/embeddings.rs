//! One request for vectors, by a call or within a stream: answered, counted and traced.

use std::time::Duration;

use tokio::sync::watch;
use tonic::{Code, metadata::MetadataMap};

use super::{
    convert::{self, Wanted},
    status, validate,
};
use crate::{
    embedder::Embedder,
    error::Error,
    input,
    pb::server::{EmbedRequest, EmbedResponse},
    served::{ServedModel, ServedModels},
    trace::{Trace, Tracer},
};

/// The service, as traces name it.
const SERVICE: &str = "embark.v1.EmbeddingService";

/// What answers requests for vectors.
#[derive(Clone)]
pub(super) struct Embeddings {
    pub(super) models: ServedModels,
    pub(super) embedder: Embedder,
    /// Says that the server takes no more: streams end then.
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) tracer: Tracer,
}

// === impl Embeddings ===

impl Embeddings {
    /// Answers a request of a method within this time, counts what became of it, and traces it where the headers say so.
    pub(super) async fn embed_within(
        &self,
        message: EmbedRequest,
        timeout: Duration,
        (method, headers): (&'static str, &MetadataMap),
    ) -> Result<EmbedResponse, Error> {
        let trace = self.tracer.begin((SERVICE, method), headers.as_ref());
        let answer = self.count(message, timeout, &trace).await;
        let failure = answer.as_ref().err();
        let code = failure.map_or(Code::Ok, |error| status::code(error.kind));
        trace.end(code.into(), failure.map(|error| error.message.as_str()));
        answer
    }

    async fn count(
        &self,
        message: EmbedRequest,
        timeout: Duration,
        trace: &Trace,
    ) -> Result<EmbedResponse, Error> {
        let model = self.models.get(&message.model)?;
        trace.describe(model.name(), message.items.len());
        // The whole call is answered by this one, whatever takes its place meanwhile.
        let answer = self.answer(&model, message, (timeout, trace)).await;
        match &answer {
            Ok(_) => model.metrics.request_answered(),
            Err(error) => model.metrics.request_failed(error.kind),
        }
        answer
    }

    async fn answer(
        &self,
        model: &ServedModel,
        message: EmbedRequest,
        (timeout, trace): (Duration, &Trace),
    ) -> Result<EmbedResponse, Error> {
        let wanted = Wanted { vectors: !message.omit_vectors, timings: message.include_timings };
        let request = validate::request(model, message)?;
        let (timeout, trace) = (Some(timeout), trace.clone());
        let request = input::Request { timeout, trace, ..request };
        let reply = self.embedder.embed(model, request).await?;
        let answered = reply.items.iter().flatten();
        model.metrics.items(answered.map(|item| item.source));
        for error in reply.items.iter().filter_map(|item| item.as_ref().err()) {
            model.metrics.item_failed(error.kind);
        }
        convert::reply(model, reply, wanted)
    }
}
