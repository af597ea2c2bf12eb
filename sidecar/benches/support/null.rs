//! The server under test with one more method, which takes bytes and answers as many as they ask for; and a client that
//! neither encodes nor decodes, so that both sides cost it the same.

use std::{
    io::{Write as _, stdout},
    marker::PhantomData,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use embark_crds::{
    contract::Contract,
    manifest,
    resolve::{Target, resolve},
};
use embark_sidecar::{
    batch::{Batcher, BatcherConfig},
    cache::{Cache, CacheConfig},
    clock::{Clock, SystemClock},
    cpu_pool::CpuPool,
    embedder::Embedder,
    grpc::server::{Endpoint, Limits, Services, routes, serve_routes},
    listen::Listener,
    metrics::{EndpointMetrics, Metrics},
    model::{artifact::ArtifactStore, load},
    served::{Runtime, ServedModel, ServedModels},
    telemetry::{self, LogFormat},
    trace::Tracer,
};
use http::uri::PathAndQuery;
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{NamedService, UnaryService},
    transport::Channel,
};

/// The method that does nothing.
pub(crate) const NULL: &str = "/embark.bench.Null/Call";
/// The method under test.
pub(crate) const EMBED: &str = "/embark.v1.EmbeddingService/Embed";

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw(PhantomData<()>);

/// A client of any method.
#[derive(Clone)]
pub(crate) struct RawClient(tonic::client::Grpc<Channel>);

/// The service that does nothing.
#[derive(Clone)]
struct Null(Bytes);

/// A request of so many bytes that asks for a reply of so many.
pub(crate) fn asking(request: usize, reply: usize) -> Bytes {
    let mut bytes = vec![0; request.max(4)];
    bytes[..4].copy_from_slice(&u32::try_from(reply).expect("a reply fits a frame").to_le_bytes());
    bytes.into()
}

/// Serves the quick start and the null method on one thread, and says where.
pub(crate) fn serve() {
    // As the program does: without a subscriber, spans that nobody asked for are rendered for another library.
    telemetry::start(LogFormat::Text, "warn").expect("it was not started before");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let contract = quickstart();
        let models = ServedModels::new([served(contract, folder.path().to_owned()).await]);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (_stop, stopped) = watch::channel(false);
        let services = Services {
            models,
            embedder: Embedder::new(NonZeroUsize::MIN, Arc::clone(&clock)).expect("threads"),
            forgetting: CpuPool::new(NonZeroUsize::MIN).expect("threads"),
            clock,
            instance: "bench".to_owned(),
            health: tonic_health::server::HealthReporter::new(),
            tracer: Tracer::default(),
            stopped: stopped.clone(),
        };
        let limits = Limits::of(&services.models, Duration::from_secs(3600));
        let null = Null(vec![0; 1 << 22].into());
        let routes = routes(services, limits).expect("the descriptor decodes").add_service(null);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        writeln!(stdout().lock(), "http://{address}").expect("the client reads");
        let (listeners, metrics) = (vec![Listener::Tcp(listener)], EndpointMetrics::default());
        let endpoint = Endpoint { listeners, tokens: None, metrics };
        serve_routes(endpoint, routes, limits, stopped).await.expect("it serves");
    });
}

fn quickstart() -> Contract {
    let text = include_str!("../../../examples/quickstart.yaml");
    let manifest = manifest::read(text).expect("it is a manifest").remove(0);
    resolve(&manifest.metadata.name, &manifest.spec, Target::Local).expect("it is good")
}

/// The model, as the process brings it up.
async fn served(contract: Contract, folder: PathBuf) -> ServedModel {
    let model = ServedModel::new(contract, Metrics::default().model("bench"));
    let serving = &model.contract.serving;
    let artifacts = ArtifactStore::new(&folder.join("artifacts"));
    let loaded = load::load(serving, &artifacts, &folder, |_| {}).await.expect("it loads");
    let config = CacheConfig {
        storage: serving.cache,
        dimensions: serving.output.dimensions.get() as usize,
        folder: folder.join("cache"),
    };
    let (policy, metrics) = (Arc::clone(&model.policy), model.metrics.clone());
    let cache = Cache::open(config, policy, Arc::new(SystemClock), metrics.cache.clone()).await;
    let preparer = loaded.preparer;
    let config = BatcherConfig {
        workers: NonZeroUsize::MIN,
        batching: serving.batching,
        longest: preparer.longest(),
    };
    let batcher = Batcher::start(loaded.engine, config, |length| preparer.sample(length), metrics);
    let batcher = batcher.expect("threads");
    let (fetcher, flights) = (None, Arc::default());
    model.start(Runtime { fetcher, preparer, batcher, cache, flights });
    model
}

// === impl Raw ===

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, frame: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.reserve(bytes.len());
        frame.put(bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(frame.copy_to_bytes(frame.remaining())))
    }
}

// === impl RawClient ===

impl RawClient {
    pub(crate) fn new(channel: Channel) -> Self {
        RawClient(tonic::client::Grpc::new(channel))
    }

    pub(crate) async fn call(&mut self, method: &'static str, request: Bytes) -> Bytes {
        self.0.ready().await.expect("the server is there");
        let path = PathAndQuery::from_static(method);
        let answer = self.0.unary(Request::new(request), path, Raw::default()).await;
        answer.expect("an answer").into_inner()
    }
}

// === impl Null ===

impl NamedService for Null {
    const NAME: &'static str = "embark.bench.Null";
}

impl UnaryService<Bytes> for Null {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let asked = request.into_inner().get_u32_le() as usize;
        std::future::ready(Ok(Response::new(self.0.slice(..asked))))
    }
}

impl tonic::codegen::Service<http::Request<Body>> for Null {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let null = self.clone();
        Box::pin(
            async move { Ok(tonic::server::Grpc::new(Raw::default()).unary(null, request).await) },
        )
    }
}
