//! Probes and metrics, for kubelets and Prometheus.

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// What Prometheus takes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the port tells of.
#[derive(Clone)]
pub(crate) struct Http {
    /// All metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Why the process is not ready yet; empty: it is.
    pub(crate) readiness: watch::Receiver<String>,
    /// The same of the webhook, if there is one.
    pub(crate) webhook: Option<watch::Receiver<String>>,
}

/// Serves until `shutdown` resolves.
pub(crate) async fn serve(
    listener: TcpListener,
    http: Http,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(http);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
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
