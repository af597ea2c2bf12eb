//! The server as a process: builds the parts from the bottom up, and takes them down from the top.
//!
//! ```text
//! manifests → listeners → models, metrics → tasks: load each model, follow its files, health, admin port, gRPC
//! signal → not ready → drain wait → stop listening, finish calls → compute what waits → write the cache → end
//! ```

mod endpoint;
mod follow;
mod load;
mod recent;
mod retire;

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use endpoint::Listeners;

use crate::{
    args,
    cli::Failure,
    clock::{Clock, SystemClock},
    config::{self, Config, ModelConfig},
    cpu_pool::CpuPool,
    embedder::Embedder,
    grpc::{
        self,
        health::Health,
        server::{Endpoint, Limits, Services},
    },
    http::{self, Admin, Settings},
    listen::Secrets,
    memory,
    metrics::Metrics,
    model::load::State,
    readiness::Readiness,
    served::{ServedModel, ServedModels},
    telemetry::LogLevel,
    trace::Export,
};

/// How long calls in flight may take to finish at the end.
const CALLS_GRACE: Duration = Duration::from_secs(30);
/// How long what waits may take to be computed, and the cache to be written, at the end.
const CACHE_GRACE: Duration = Duration::from_secs(10);

/// A server that runs.
struct App {
    models: ServedModels,
    readiness: Readiness,
    stop: watch::Sender<bool>,
    grpc: JoinHandle<()>,
    admin: JoinHandle<()>,
    /// Loads of models, and their files.
    follower: JoinHandle<()>,
    /// Versions that others took the place of.
    retiring: retire::Retiring,
    secrets: JoinHandle<()>,
    recent: JoinHandle<()>,
    traces: Export,
}

/// Serves until a signal, then ends cleanly.
///
/// # Errors
/// A manifest is wrong, a port is taken, or no model could be loaded.
pub async fn run(arguments: args::Serve, log_level: LogLevel) -> Result<(), Failure> {
    crate::model::artifact::install_tls_provider();
    let config = Config::read(&arguments)?;
    let secrets = endpoint::secrets(&config.endpoint)?;
    let listeners = Listeners::bind(&config).await?;
    let (drain_wait, ends) = (config.drain_wait, config.ends_without_models);
    let app = App::start(config, (listeners, secrets), log_level)?;
    let outcome = tokio::select! {
        name = ended_by_signal() => {
            info!(signal = name, "draining");
            Ok(())
        }
        failure = app.nothing_to_serve(), if ends => Err(failure),
    };
    if outcome.is_ok() {
        app.readiness.drain();
        tokio::select! {
            () = tokio::time::sleep_until(Instant::now() + drain_wait) => {}
            _ = ended_by_signal() => warn!("a second signal: not waiting any longer"),
        }
    }
    app.end().await;
    outcome
}

// === impl App ===

impl App {
    fn start(
        config: Config,
        (listeners, secrets): (Listeners, Secrets),
        log_level: LogLevel,
    ) -> Result<Self, Failure> {
        memory::limit_to(config.memory_limit);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = Arc::new(Settings::of(&config));
        let metrics = Arc::new(Metrics::default());
        let endpoint_metrics = metrics.endpoint.clone();
        let traces = Export::start(&config.instance, metrics.trace_failures.clone())
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let served = |model| served(model, &metrics);
        let models = ServedModels::new(config.models.iter().map(served));
        let readiness = Readiness::new(models.clone());
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (stop, stopped) = watch::channel(false);

        let loader = load::Loader::new(&config.data_dir, cores, Arc::clone(&clock), models.clone());
        let retiring = loader.retiring.clone();
        let sources = follow::Sources {
            models: config.models,
            unread: config.unread,
            arrivals: config.arrivals,
            offered: config::offered(&config.endpoint),
        };
        let follower = follow::start(sources, loader, Arc::clone(&metrics));
        let reporter = HealthReporter::new();
        let health = Health::new(reporter.clone(), models.clone(), readiness.clone());
        let services = Services {
            models: models.clone(),
            embedder: Embedder::new(cores, Arc::clone(&clock)).map_err(no_threads)?,
            forgetting: CpuPool::new(NonZeroUsize::MIN).map_err(no_threads)?,
            clock,
            instance: config.instance.clone(),
            health: reporter,
            tracer: traces.tracer(),
            stopped: stopped.clone(),
        };
        let admin = Admin {
            models: models.clone(),
            readiness: readiness.clone(),
            metrics,
            secrets: secrets.clone(),
            instance: config.instance,
            settings,
            log_level,
        };
        announce((&models, &listeners), (&secrets, config.listen));
        let (admin_listener, entry) = listeners.split(&secrets, endpoint_metrics.clone());
        let limits = Limits::of(&models, config.max_connection_age);
        let grpc = tokio::spawn(serve_grpc(entry, (services, limits), health, stopped.clone()));
        let admin = tokio::spawn(serve_admin(admin_listener, admin, stopped));
        let secrets = endpoint::follow(&secrets, endpoint_metrics);
        Ok(App {
            recent: recent::start(&models),
            models,
            readiness,
            stop,
            grpc,
            admin,
            follower,
            retiring,
            secrets,
            traces,
        })
    }

    /// Resolves when every model has failed: then there is nothing to serve.
    async fn nothing_to_serve(&self) -> Failure {
        self.readiness.settled().await;
        let failed = |model: &ServedModel| {
            let progress = model.progress().borrow().clone();
            (progress.state == State::Failed)
                .then(|| format!("{}: {}", model.name(), progress.message))
        };
        let failures: Vec<Option<String>> = self.models.iter().map(|m| failed(&m)).collect();
        match failures.into_iter().collect::<Option<Vec<String>>>() {
            Some(failures) => Failure::Run(failures.join("\n")),
            None => std::future::pending().await,
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        if timeout(CALLS_GRACE, self.grpc).await.is_err() {
            warn!("calls in flight did not finish in {CALLS_GRACE:?}");
        }
        self.follower.abort();
        self.secrets.abort();
        self.recent.abort();
        // An error: it was aborted. No version takes over any more then.
        let _ = self.follower.await;
        let closed = self
            .models
            .iter()
            .map(|model| tokio::spawn(async move { retire::close(&model, CACHE_GRACE).await }));
        for closing in closed.collect::<Vec<_>>() {
            if let Err(error) = closing.await {
                warn!("failed to close a model: {error}");
            }
        }
        self.retiring.end(CACHE_GRACE).await;
        self.traces.end().await;
        self.admin.abort();
        info!("ended");
    }
}

// === free functions ===

fn served(model: &ModelConfig, metrics: &Metrics) -> ServedModel {
    let name = &model.contract.serving.name;
    ServedModel::new(model.contract.clone(), metrics.model(name))
}

fn no_threads(error: std::io::Error) -> Failure {
    Failure::Run(format!("no threads to prepare requests on: {error}"))
}

/// Says what is served, where, and what anybody on the way can read.
fn announce(
    (models, listeners): (&ServedModels, &Listeners),
    (secrets, listen): (&Secrets, SocketAddr),
) {
    for model in models.iter() {
        let serving = &model.contract.serving;
        info!(
            model = serving.name,
            digest = %serving.model.sha256,
            space_id = %model.space,
            dimensions = serving.output.dimensions,
            "serving a model",
        );
    }
    listeners.announce();
    endpoint::warn_of_cleartext(secrets, listen);
}

async fn serve_grpc(
    endpoint: Endpoint,
    (services, limits): (Services, Limits),
    mut health: Health,
    stopped: watch::Receiver<bool>,
) {
    // Before the first call is answered.
    health.say().await;
    let following = health.follow(stopped.clone());
    let ((), served) = tokio::join!(following, grpc::server::serve(endpoint, services, limits));
    if let Err(error) = served {
        warn!(error = &error as &dyn std::error::Error, "gRPC ended");
    }
}

async fn serve_admin(listener: TcpListener, admin: Admin, stopped: watch::Receiver<bool>) {
    if let Err(error) = http::serve(listener, admin, until(stopped)).await {
        warn!("the admin port ended: {error}");
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and the process with it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// SIGHUP too: it says that the terminal is gone. Files are read again without being told.
async fn ended_by_signal() -> &'static str {
    let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (term, int, signal(SignalKind::hangup())) {
        (Ok(mut term), Ok(mut int), Ok(mut hangup)) => tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hangup.recv() => "SIGHUP",
        },
        _ => {
            warn!("signals cannot be listened for; only a kill ends the process");
            std::future::pending().await
        }
    }
}
