//! The gRPC server: the services, health and reflection on one listener.

use std::{sync::Arc, time::Duration};

use embark_crds::contract::LEAST_MAX_REQUEST_BYTES;
use tokio::sync::watch;
use tonic::{service::Routes, transport::Server};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder as Reflection;

use super::{
    auth::Auth, cache_service::Caches, embeddings::Embeddings, ending::Ending, in_flight::InFlight,
};
use crate::{
    clock::Clock,
    cpu_pool::CpuPool,
    embedder::Embedder,
    listen::{Listener, connections},
    memory,
    metrics::EndpointMetrics,
    pb::{
        DESCRIPTOR,
        server::{
            cache_service_server::CacheServiceServer,
            embedding_service_server::EmbeddingServiceServer,
        },
    },
    secrets::{Rotating, tokens::Tokens},
    served::ServedModels,
    trace::Tracer,
};

/// Bytes that one stream may send before it is read: a batch of long texts in one flight.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that all streams of a connection may send before they are read.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Calls in flight on one connection.
const MAX_STREAMS: u32 = 1024;
/// How long a connection may be silent before it is asked whether its client is still there. Go's client takes no offence
/// at 10 s or more.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// How long the client may take to say so.
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(20);

/// How long calls may go on when their connection is given up for its age.
const AGE_GRACE: Duration = Duration::from_secs(60);

/// What bounds the transport.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How old a connection may become: its client makes another then, and so comes to know of new pods.
    pub connection_age: Duration,
    /// Bytes of memory that the process may use.
    pub memory_bytes: u64,
    /// Bytes of the largest request.
    pub request_bytes: u64,
}

/// Where callers come in, and who is let in.
pub struct Endpoint {
    /// The places.
    pub listeners: Vec<Listener>,
    /// Tokens that callers show; `None`: they need none.
    pub tokens: Option<Arc<Rotating<Tokens>>>,
    /// What is counted there.
    pub metrics: EndpointMetrics,
}

/// What the server answers with.
pub struct Services {
    /// The models.
    pub models: ServedModels,
    /// The use case.
    pub embedder: Embedder,
    /// The clock that invalidations are dated by.
    pub clock: Arc<dyn Clock>,
    /// Where items to be forgotten become keys, apart from what embedding needs.
    pub forgetting: CpuPool,
    /// What the process calls itself.
    pub instance: String,
    /// What health answers is told through this.
    pub health: HealthReporter,
    /// Begins the traces of calls.
    pub tracer: Tracer,
    /// Says that it takes no more calls, and finishes those in flight.
    pub stopped: watch::Receiver<bool>,
}

/// Why the server could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What reflection describes does not decode.
    #[error("what reflection describes does not decode")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport broke.
    #[error("the transport failed")]
    Transport(#[source] tonic::transport::Error),
}

// === impl Limits ===

impl Limits {
    /// What bounds a server of these models.
    pub fn of(models: &ServedModels, connection_age: Duration) -> Self {
        let requests = models.iter().map(|model| model.contract.serving.max_request_bytes());
        // What may come later takes at least that.
        let request_bytes = requests.chain([LEAST_MAX_REQUEST_BYTES]).max().unwrap_or_default();
        Limits { connection_age, memory_bytes: memory::limit(), request_bytes }
    }
}

// === free functions ===

/// Serves until it is stopped, then finishes the calls in flight.
///
/// # Errors
/// The listener broke, or the descriptor does not decode.
pub async fn serve(
    endpoint: Endpoint,
    services: Services,
    limits: Limits,
) -> Result<(), ServeError> {
    let stopped = services.stopped.clone();
    serve_routes(endpoint, routes(services, limits)?, limits, stopped).await
}

/// Every service, as the server has it.
///
/// # Errors
/// The descriptor does not decode.
pub fn routes(services: Services, limits: Limits) -> Result<Routes, ServeError> {
    let limit = usize::try_from(limits.request_bytes).unwrap_or(usize::MAX);
    let Services { models, embedder, clock, forgetting, instance, health, tracer, stopped } =
        services;
    let embeddings = EmbeddingServiceServer::new(Embeddings {
        models: models.clone(),
        embedder,
        stopped,
        tracer,
    })
    .max_decoding_message_size(limit);
    let caches = CacheServiceServer::new(Caches::new(models, clock, instance, forgetting))
        .max_decoding_message_size(limit);
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health),
    );
    Ok(Routes::new(embeddings)
        .add_service(caches)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(ServeError::Reflection)?)
        .add_service(reflection().build_v1alpha().map_err(ServeError::Reflection)?))
}

/// Serves these services until `stopped` says so, then finishes the calls in flight.
///
/// # Errors
/// The listener broke.
pub async fn serve_routes(
    endpoint: Endpoint,
    routes: Routes,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let Endpoint { listeners, tokens, metrics } = endpoint;
    let calls_shed = metrics.calls_shed.clone();
    let incoming = connections(listeners, &stopped);
    let ending = Ending(stopped.clone());
    let shutdown = async move {
        // An error means that nobody can say so any more.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    Server::builder()
        .layer(Auth::by(tokens, metrics))
        .layer(ending)
        .layer(InFlight::of(limits.memory_bytes, limits.request_bytes, calls_shed))
        .max_connection_age(limits.connection_age)
        .max_connection_age_grace(AGE_GRACE)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WITHIN))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(ServeError::Transport)
}

fn reflection() -> Reflection<'static> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
