//! The admin port: probes, metrics and status, for kubelets, Prometheus and people.

mod config;
mod log_level;
mod status;

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use embark_crds::contract::report::Report;
use tokio::net::TcpListener;

pub use config::Settings;

use crate::{
    listen::Secrets, metrics::Metrics, readiness::Readiness, served::ServedModels,
    telemetry::LogLevel,
};

/// What Prometheus takes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bytes of the longest request: a filter of the log.
const MOST_BODY_BYTES: usize = 4096;

/// What the admin port tells of.
#[derive(Clone)]
pub struct Admin {
    /// The models.
    pub models: ServedModels,
    /// Whether requests should be sent here.
    pub readiness: Readiness,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What lets callers in.
    pub secrets: Secrets,
    /// What the process calls itself.
    pub instance: String,
    /// What it was started with.
    pub settings: Arc<Settings>,
    /// What is logged.
    pub log_level: LogLevel,
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
        .route("/config", get(config::get))
        .route("/log-level", get(log_level::get).put(log_level::put))
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .with_state(admin)
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

async fn live(State(admin): State<Admin>) -> (StatusCode, String) {
    answer(admin.readiness.alive(), "live")
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    answer(admin.readiness.check(), "ready")
}

/// What a probe is told.
fn answer(holds: Result<(), String>, word: &str) -> (StatusCode, String) {
    match holds {
        Ok(()) => (StatusCode::OK, format!("{word}\n")),
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
