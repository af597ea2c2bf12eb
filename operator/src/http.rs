//! Probes and metrics, for kubelets and Prometheus; and what is logged, which this machine alone may change.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tracing::warn;

use crate::{
    metrics::Metrics,
    port::{Bounds, Port},
    telemetry::LogLevel,
};

/// What Prometheus takes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The most bytes of what is sent to the port: a filter of the log.
const MOST_BYTES: usize = 4096;
/// What the port takes. A kubelet and a few of Prometheus ask here.
const BOUNDS: Bounds =
    Bounds { connections: 64, body_bytes: MOST_BYTES, all_bodies_bytes: 64 * MOST_BYTES };

/// What the port tells of.
#[derive(Clone)]
pub(crate) struct Http {
    /// All metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Why the process is not ready yet; empty: it is.
    pub(crate) readiness: watch::Receiver<String>,
    /// The same of the webhook, if there is one.
    pub(crate) webhook: Option<watch::Receiver<String>>,
    /// What is logged.
    pub(crate) log_level: LogLevel,
}

/// Serves until `shutdown` resolves.
pub(crate) async fn serve(
    listener: TcpListener,
    http: Http,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level).put(set_log_level))
        .with_state(http);
    Port { listener, tls: None, routes, bounds: BOUNDS }.serve(shutdown).await;
}

async fn ready(State(http): State<Http>) -> (StatusCode, String) {
    let of_webhook = http.webhook.map(|webhook| webhook.borrow().clone()).unwrap_or_default();
    let why = [http.readiness.borrow().clone(), of_webhook];
    match why.into_iter().find(|why| !why.is_empty()) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(http): State<Http>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], http.metrics.encode())
}

async fn log_level(State(http): State<Http>) -> String {
    http.log_level.get() + "\n"
}

/// Logs something else: the body is a level or a filter, as `--log-level` takes it.
async fn set_log_level(
    State(http): State<Http>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: String,
) -> (StatusCode, String) {
    if !from.ip().to_canonical().is_loopback() {
        let sentence = "the level of the log is changed from the pod or machine itself alone\n";
        return (StatusCode::FORBIDDEN, sentence.to_owned());
    }
    let level = body.trim();
    match http.log_level.set(level) {
        Ok(()) => {
            // At a level that is logged unless nothing is: who reads the log learns why it changes.
            warn!(level, "the level of the log was changed");
            (StatusCode::OK, format!("{level}\n"))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[tokio::test]
    async fn only_this_machine_changes_what_is_logged() {
        let (_readiness, is_ready) = watch::channel(String::new());
        let http = Http {
            metrics: Arc::new(Metrics::new(Counter::default())),
            readiness: is_ready,
            webhook: None,
            log_level: LogLevel::of_nothing(),
        };
        for (from, expected) in [
            ("127.0.0.1:1", StatusCode::OK),
            ("[::ffff:127.0.0.1]:1", StatusCode::OK),
            ("10.0.0.1:1", StatusCode::FORBIDDEN),
            ("[fd00::1]:1", StatusCode::FORBIDDEN),
        ] {
            let from = ConnectInfo(from.parse().unwrap());
            let (code, _) = set_log_level(State(http.clone()), from, "debug".to_owned()).await;
            assert_eq!(code, expected, "{from:?}");
        }
    }
}
