//! The EmbeddingService.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert::{self, Wanted},
    status, validate,
};
use crate::{
    embedder::Embedder,
    error::{Error, ErrorKind},
    pb::server::{
        self as pb, EmbedRequest, EmbedResponse, EmbedStreamRequest, EmbedStreamResponse,
        GetModelRequest, GetModelResponse, ListModelsRequest, ListModelsResponse,
        embedding_service_server::EmbeddingService,
    },
    served::{ServedModel, ServedModels},
};

pub(super) struct Embeddings {
    pub(super) models: ServedModels,
    pub(super) embedder: Embedder,
}

// === impl Embeddings ===

impl Embeddings {
    async fn answer(
        &self,
        model: &ServedModel,
        message: EmbedRequest,
    ) -> Result<EmbedResponse, Error> {
        let wanted = Wanted { vectors: !message.omit_vectors, timings: message.include_timings };
        let request = validate::request(model, message)?;
        let reply = self.embedder.embed(model, request).await?;
        let answered = reply.items.iter().flatten();
        model.metrics.items(answered.map(|item| item.source));
        for error in reply.items.iter().filter_map(|item| item.as_ref().err()) {
            model.metrics.item_failed(error.kind);
        }
        convert::reply(model, reply, wanted)
    }
}

#[tonic::async_trait]
impl EmbeddingService for Embeddings {
    type EmbedStreamStream =
        Pin<Box<dyn Stream<Item = Result<EmbedStreamResponse, Status>> + Send + 'static>>;

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let message = request.into_inner();
        let model = self.models.get(&message.model).map_err(|error| status::of(&error))?;
        match self.answer(model, message).await {
            Ok(answer) => {
                model.metrics.request_answered();
                Ok(Response::new(answer))
            }
            Err(error) => {
                model.metrics.request_failed(error.kind);
                Err(status::of(&error))
            }
        }
    }

    async fn embed_stream(
        &self,
        _: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let sentence = "EmbedStream is not supported yet; use Embed";
        Err(status::of(&Error::new(ErrorKind::Unsupported, sentence)))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        let name = request.into_inner().model;
        let model = self.models.get(&name).map_err(|error| status::of(&error))?;
        Ok(Response::new(GetModelResponse { model: Some(convert::model(model)) }))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let models: Vec<pb::Model> = self.models.iter().map(|m| convert::model(m)).collect();
        Ok(Response::new(ListModelsResponse { models }))
    }
}
