//! The EmbeddingService.

use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, deadline, embeddings::Embeddings, status, stream};
use crate::pb::server::{
    self as pb, EmbedRequest, EmbedResponse, EmbedStreamRequest, GetModelRequest, GetModelResponse,
    ListModelsRequest, ListModelsResponse, embedding_service_server::EmbeddingService,
};

// === impl Embeddings ===

#[tonic::async_trait]
impl EmbeddingService for Embeddings {
    type EmbedStreamStream = stream::Answers;

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let timeout = deadline::of(request.metadata()).map_err(|error| status::of(&error))?;
        let (headers, _, message) = request.into_parts();
        let answer = self.embed_within(message, timeout, ("Embed", &headers)).await;
        answer.map(Response::new).map_err(|error| status::of(&error))
    }

    async fn embed_stream(
        &self,
        request: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let timeout = deadline::said(request.metadata()).map_err(|error| status::of(&error))?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Response::new(stream::answer(self.clone(), request, deadline)))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        let name = request.into_inner().model;
        let model = self.models.get(&name).map_err(|error| status::of(&error))?;
        Ok(Response::new(GetModelResponse { model: Some(convert::model(&model)) }))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let models: Vec<pb::Model> = self.models.iter().map(|m| convert::model(&m)).collect();
        Ok(Response::new(ListModelsResponse { models }))
    }
}
