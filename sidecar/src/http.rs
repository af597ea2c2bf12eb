//! The admin port: probes, metrics and status, for kubelets, Prometheus and people.

mod status;

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use embark_crds::contract::report::Report;
use tokio::net::TcpListener;

use crate::{metrics::Metrics, readiness::Readiness, served::ServedModels};

/// What Prometheus takes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin port tells of.
#[derive(Clone)]
pub struct Admin {
    /// The models.
    pub models: ServedModels,
    /// Whether requests should be sent here.
    pub readiness: Readiness,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What the process calls itself.
    pub instance: String,
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(admin);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.readiness.check() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    for model in admin.models.iter() {
        model.refresh_gauges();
    }
    ([(CONTENT_TYPE, OPEN_METRICS)], admin.metrics.encode())
}

async fn status(State(admin): State<Admin>) -> Json<Report> {
    Json(status::report(&admin))
}
