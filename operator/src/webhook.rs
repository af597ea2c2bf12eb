//! The webhook that gives pods a sidecar. Every replica answers, whether it leads or not.
//!
//! ```text
//! API server ─ TLS ─ review      the question, and the pod in it
//!                    asked       the pod's annotations
//!                    models      the models that it names, of a watch of our own, or asked for once
//!                    inject      what is changed, pure: sidecar is what is added
//! keeper             the certificate: kept says what the Secret should hold, certificate makes it
//! ```

mod asked;
mod certificate;
mod inject;
mod keeper;
mod kept;
mod models;
mod refusal;
mod review;
mod server;
mod sidecar;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::info;

use self::{
    asked::Asked,
    keeper::{Certificate, Keeper, Source},
    kept::Terms,
    models::Models,
    refusal::Refusal,
    review::Review,
};
use crate::{
    args,
    metrics::Metrics,
    port::{self, Port},
    watches::Scope,
};

/// The path that the API server calls.
const PATH: &str = "/inject";
/// Questions that are judged at a time, which bounds the memory that they take. Others wait; who still sends has no place.
const AT_A_TIME: usize = 6;
/// How long a look at the certificate may take. It is a handful of requests.
const LOOK_WITHIN: Duration = Duration::from_secs(30);
/// How long a model may be asked for. The API server waits for 5 s.
const FIND_WITHIN: Duration = Duration::from_secs(3);

/// What a webhook is told from outside.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where it listens.
    listen: SocketAddr,
    /// Where its certificate comes from.
    source: Source,
    /// How often that is looked at.
    every: Duration,
    /// How long pods are answered for after the end was announced.
    drain: Duration,
}

/// What a webhook works with.
pub(crate) struct Parts {
    pub(crate) client: Client,
    /// The operator's own.
    pub(crate) namespace: String,
    /// The image of the sidecars.
    pub(crate) image: String,
    /// The namespaces whose models there are.
    pub(crate) scope: Scope,
    pub(crate) metrics: Arc<Metrics>,
}

/// A webhook that answers.
pub(crate) struct Webhook {
    readiness: watch::Sender<String>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    keeping: JoinHandle<()>,
    watching: JoinHandle<()>,
    drain: Duration,
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its port.
    #[error("--webhook-listen: {address} cannot be listened on")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
}

/// What every answer needs.
#[derive(Clone)]
struct Injector {
    models: Models,
    image: Arc<str>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
}

// === impl Settings ===

impl Settings {
    /// The settings of a webhook, if there is to be one.
    pub(crate) fn of(arguments: &args::Webhook, namespace: &str) -> Option<Self> {
        let service = &arguments.webhook_service;
        let source = match &arguments.webhook_cert_dir {
            Some(folder) => Source::Folder(folder.clone()),
            None => Source::Secret {
                secret: arguments.webhook_secret.clone(),
                configuration: arguments.webhook_configuration.clone(),
                terms: Terms {
                    host: format!("{service}.{namespace}.svc"),
                    validity: arguments.webhook_validity,
                    settle: arguments.webhook_settle,
                },
            },
        };
        arguments.webhook_listen.map(|listen| Settings {
            listen,
            source,
            every: arguments.webhook_every,
            drain: arguments.webhook_drain,
        })
    }
}

// === impl Webhook ===

impl Webhook {
    /// Starts to answer. Nobody is answered before there is a certificate.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) async fn start(settings: Settings, parts: Parts) -> Result<Self, StartError> {
        let address = settings.listen;
        let listener =
            port::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        announce(&listener);
        let certificate = Arc::new(Certificate::default());
        let tls = server::acceptor(Arc::clone(&certificate)).map_err(StartError::Tls)?;
        let readiness = watch::Sender::new("the webhook has no certificate yet".to_owned());
        let keeper = Keeper {
            client: parts.client.clone(),
            namespace: parts.namespace,
            source: settings.source,
            every: settings.every,
            within: LOOK_WITHIN,
            certificate,
            readiness: readiness.clone(),
            metrics: Arc::clone(&parts.metrics),
        };
        let (models, watching) = Models::watch(&parts.client, &parts.scope);
        let image = parts.image.into();
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let injector = Injector { models, image, metrics: parts.metrics, places };
        // The port itself bounds what it reads.
        let routes = Router::new()
            .route(PATH, post(answer))
            .layer(DefaultBodyLimit::disable())
            .with_state(injector);
        let port = Port { listener, tls: Some(tls), routes, bounds: server::BOUNDS };
        let (stop, mut stopped) = watch::channel(false);
        let until = async move {
            // An error means that the sender is gone, and the process with it.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        Ok(Webhook {
            readiness,
            stop,
            serving: tokio::spawn(port.serve(until)),
            keeping: tokio::spawn(keeper.keep()),
            watching,
            drain: settings.drain,
        })
    }

    /// Why the process should not be called yet, or no more; empty: it should.
    pub(crate) fn readiness(&self) -> watch::Receiver<String> {
        self.readiness.subscribe()
    }

    /// Waits until a part of it has ended by itself, which none should, and names it.
    pub(crate) async fn broken(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.serving => "the webhook's port",
            _ = &mut self.keeping => "what keeps the webhook's certificate",
            _ = &mut self.watching => "the webhook's watch of models",
        }
    }

    /// Says that it ends, answers until the API server has heard of it, and then ends.
    pub(crate) async fn end(self) {
        self.keeping.abort();
        self.readiness.send_replace("the webhook is ending".to_owned());
        sleep_until(Instant::now() + self.drain).await;
        self.stop.send_replace(true);
        // What has ended before was told of.
        if !self.serving.is_finished() {
            let _ = self.serving.await;
        }
        self.watching.abort();
    }
}

// === impl Injector ===

impl Injector {
    /// What is changed in a pod.
    async fn judge(&self, request: review::Request) -> Result<Vec<Value>, Refusal> {
        let pod: Pod = serde_json::from_value(request.object)
            .map_err(|error| Refusal::malformed(format!("the object is no Pod: {error}")))?;
        let asked = Asked::read(pod.metadata.annotations.as_ref())?;
        let finding = self.models.find(&request.namespace, &asked.models);
        let models = timeout(FIND_WITHIN, finding).await.map_err(|_| {
            Refusal::failed(format!("the API server names no models within {FIND_WITHIN:?}"))
        })??;
        inject::patch(&pod, &asked, &models, &self.image)
    }
}

// === free functions ===

fn announce(listener: &TcpListener) {
    let address = listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    info!(address, "the webhook listens");
}

/// Answers a question that is here in full.
async fn answer(State(injector): State<Injector>, body: Bytes) -> Response {
    let started = Instant::now();
    // It is never closed.
    let _place = injector.places.acquire().await;
    let request = match Review::read(&body) {
        Ok(request) => request,
        Err(sentence) => return (StatusCode::BAD_REQUEST, sentence).into_response(),
    };
    let (uid, namespace) = (request.uid.clone(), request.namespace.clone());
    let outcome = injector.judge(request).await;
    let word = match &outcome {
        Ok(_) => "allowed",
        Err(refusal) if refusal.is_error => "error",
        Err(_) => "refused",
    };
    if let Err(refusal) = &outcome {
        info!(namespace, code = refusal.code, "a pod was refused: {}", refusal.message);
    }
    injector.metrics.webhook.answered(word, started.elapsed());
    Json(review::answer(&uid, &outcome)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_is_noticed_and_named() {
        type Tasks = [JoinHandle<()>; 3];
        let forever = || tokio::spawn(std::future::pending());
        let dies = || tokio::spawn(async { panic!("on purpose") });
        let all: [(Tasks, &str); 3] = [
            ([dies(), forever(), forever()], "port"),
            ([forever(), dies(), forever()], "certificate"),
            ([forever(), forever(), tokio::spawn(async {})], "models"),
        ];
        for ([serving, keeping, watching], part) in all {
            let mut webhook = Webhook {
                readiness: watch::Sender::default(),
                stop: watch::Sender::new(false),
                serving,
                keeping,
                watching,
                drain: Duration::ZERO,
            };
            assert!(webhook.broken().await.contains(part), "{part}");
            webhook.serving.abort();
            webhook.end().await;
        }
    }
}
