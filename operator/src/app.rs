//! The operator as a process.
//!
//! ```text
//! cluster → probes and metrics → the CRD is there → the Lease is ours → watches, poller, controller
//! the Lease is lost → watches, poller and controller end → it is waited for again
//! signal → all of that ends → the Lease is given back
//! ```

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use embark_crds::v1alpha1::EmbeddingModel;
use futures_util::StreamExt as _;
use kube::{Client, Config, api::ListParams};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use crate::{
    args,
    children::Children,
    client,
    controller::{self, Context, Seen},
    gate::{self, Term},
    http::{self, Http},
    lease::Elector,
    metrics::Metrics,
    pods::{ClientError, Poller, WAITING},
    port,
    settings::Settings,
    telemetry::Telemetry,
    watches::Scope,
    webhook::{Parts, StartError, Webhook},
};

/// How often the cluster is asked for a definition that it does not serve yet.
const CRD_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may fall silent. A server ends a watch sooner than that; an answer whose sender is gone never ends.
const SILENCE: Duration = Duration::from_secs(330);
/// How long answers of probes and metrics may take at the end.
const HTTP_GRACE: Duration = Duration::from_secs(5);

/// Why there is no cluster to talk to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a pod's service account nor a kubeconfig.
    #[error("found no cluster: neither a pod's service account nor a kubeconfig")]
    Config(#[source] kube::config::InferConfigError),
    /// What they say cannot be used.
    #[error("failed to set up the client of the cluster")]
    Client(#[source] kube::Error),
}

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no cluster to talk to.
    #[error(transparent)]
    Connect(ConnectError),
    /// The port of probes and metrics.
    #[error("--listen: {address} cannot be listened on")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Pods cannot be given a sidecar.
    #[error(transparent)]
    Webhook(StartError),
    /// A part of it has ended by itself: another process does better.
    #[error("{0} ended, which it never should")]
    Ended(&'static str),
    /// Signals cannot be listened for.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// No pod can be asked how it is.
    #[error(transparent)]
    Pods(#[from] PodsError),
}

/// Why no pod can be asked how it is.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PodsError(ClientError);

/// A client of the cluster that this process is in, or that the kubeconfig names.
pub(crate) async fn connect() -> Result<Client, ConnectError> {
    Client::try_from(cluster().await?).map_err(ConnectError::Client)
}

/// How that cluster is reached.
async fn cluster() -> Result<Config, ConnectError> {
    // It fails only when one was installed before, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::infer().await.map_err(ConnectError::Config)?;
    config.read_timeout = Some(SILENCE);
    Ok(config)
}

/// Reconciles until a signal, then ends cleanly.
///
/// # Errors
/// There is no cluster, or the port is taken. A cluster that does not answer is waited for.
pub async fn run(arguments: &args::Run, telemetry: Telemetry) -> Result<(), RunError> {
    let settings = Settings::of(arguments);
    let mut ended = Signals::listen().map_err(RunError::Signals)?;
    let Telemetry { level, traces } = telemetry;
    let metrics = Arc::new(Metrics::new(traces.failures()));
    let term = Term::default();
    let Clients { always: client, leader } =
        clients(&term, &metrics).await.map_err(RunError::Connect)?;
    let address = settings.listen;
    let listener =
        port::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let bound = listener.local_addr().map_or_else(|_| address.to_string(), |at| at.to_string());
    info!(address = bound, version = env!("CARGO_PKG_VERSION"), "listening");
    let (stop, stopped) = watch::channel(false);
    let (readiness, is_ready) = watch::channel("the cluster was not heard of yet".to_owned());
    let mut webhook = webhook(&client, &settings, &metrics).await?;
    let webhook_is_ready = webhook.as_ref().map(Webhook::readiness);
    let http = Http {
        metrics: Arc::clone(&metrics),
        readiness: is_ready,
        webhook: webhook_is_ready,
        log_level: level,
    };
    let mut serving = tokio::spawn(http::serve(listener, http, until(stopped)));

    let mut elector = Elector::new(client, settings.lease.clone(), term);
    let worker = Worker { client: leader, settings, metrics };
    let outcome = tokio::select! {
        name = ended.next() => {
            info!(signal = name, "ending");
            Ok(())
        }
        error = worker.work(&mut elector, &readiness) => Err(error),
        // Whatever is left would look well, and do half of its work.
        _ = &mut serving => Err(RunError::Ended("the port of probes and metrics")),
        part = broken(&mut webhook) => Err(RunError::Ended(part)),
    };
    // What its future had begun ends at its next step, and writes nothing after the term. A write that was sent before may
    // still arrive: it is one that the next leader makes as well.
    tokio::join!(elector.release(), async {
        if let Some(webhook) = webhook {
            webhook.end().await;
        }
    });
    stop.send_replace(true);
    if !serving.is_finished() && timeout(HTTP_GRACE, serving).await.is_err() {
        warn!("a client of the port of probes and metrics was left behind");
    }
    traces.end().await;
    outcome
}

/// How the process talks to the cluster.
struct Clients {
    /// Whether it leads or not.
    always: Client,
    /// For a leader's work: it writes only as long as this replica leads.
    leader: Client,
}

async fn clients(term: &Term, metrics: &Arc<Metrics>) -> Result<Clients, ConnectError> {
    let config = cluster().await?;
    // The gate sends again what is to be sent again.
    let mut once = config.clone();
    once.default_retry = false;
    let counted = |config| client::counted(config, metrics).map_err(ConnectError::Client);
    let leader = gate::client(counted(once)?, term.clone());
    Ok(Clients { always: counted(config)?, leader })
}

/// What a leader works with.
struct Worker {
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
}

/// What ends the process.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

// === impl Signals ===

impl Signals {
    fn listen() -> io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Signals { term, int })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

// === impl Worker ===

impl Worker {
    /// Leads, whenever it may. It returns only when it cannot work at all.
    async fn work(&self, elector: &mut Elector, readiness: &watch::Sender<String>) -> RunError {
        served(&self.client, &self.settings.scope, readiness).await;
        readiness.send_replace("the Lease was not heard of yet".to_owned());
        loop {
            elector.acquire(|| drop(readiness.send_replace(String::new()))).await;
            self.metrics.leads(true);
            let outcome = tokio::select! {
                () = elector.hold() => None,
                error = self.lead() => Some(error),
            };
            self.metrics.leads(false);
            if let Some(error) = outcome {
                return error.into();
            }
        }
    }

    /// Reconciles until it is dropped.
    async fn lead(&self) -> PodsError {
        let (children, triggers) = Children::watch(&self.client, &self.settings.scope);
        let seen = Seen { children: Arc::new(children), reports: Arc::default() };
        let (changed, changes) = mpsc::channel(WAITING);
        let (children, reports) = (Arc::clone(&seen.children), Arc::clone(&seen.reports));
        let poller = match Poller::new(children, reports, Arc::clone(&self.metrics), changed) {
            Ok(poller) => poller,
            Err(error) => return PodsError(error),
        };
        let (client, metrics) = (self.client.clone(), Arc::clone(&self.metrics));
        let context = Context::new(client, self.settings.clone(), seen, metrics);
        let triggers = futures_util::stream::select(triggers, ReceiverStream::new(changes));
        let reconciling = controller::run(Arc::new(context), triggers.boxed());
        tokio::join!(reconciling, poller.run());
        std::future::pending().await
    }
}

// === free functions ===

/// Starts the webhook, if there is to be one.
async fn webhook(
    client: &Client,
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<Option<Webhook>, RunError> {
    let Some(wanted) = settings.webhook.clone() else { return Ok(None) };
    let parts = Parts {
        client: client.clone(),
        namespace: settings.lease.namespace.clone(),
        image: settings.sidecar_image.clone(),
        scope: settings.scope.clone(),
        metrics: Arc::clone(metrics),
    };
    Webhook::start(wanted, parts).await.map(Some).map_err(RunError::Webhook)
}

/// Waits until the cluster serves EmbeddingModels, in some namespace that is watched.
async fn served(client: &Client, scope: &Scope, readiness: &watch::Sender<String>) {
    while let Err(error) = is_served(client, scope).await {
        let why = format!("the cluster does not serve EmbeddingModels: {error}");
        let is_new = readiness.send_if_modified(|said| {
            let is_new = *said != why;
            said.clone_from(&why);
            is_new
        });
        if is_new {
            warn!("{why}");
        }
        sleep_until(Instant::now() + CRD_EVERY).await;
    }
}

/// Fails as the last namespace does.
async fn is_served(client: &Client, scope: &Scope) -> kube::Result<()> {
    let one = ListParams::default().limit(1);
    let mut outcome = Ok(());
    for api in scope.each::<EmbeddingModel>(client) {
        outcome = api.list_metadata(&one).await.map(drop);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Waits until a part of the webhook has ended by itself, and names it.
async fn broken(webhook: &mut Option<Webhook>) -> &'static str {
    match webhook {
        Some(webhook) => webhook.broken().await,
        None => std::future::pending().await,
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and the process with it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
