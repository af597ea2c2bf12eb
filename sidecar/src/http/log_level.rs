//! `/log-level`: what is logged, read by all and changed by this machine alone.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, State},
    http::StatusCode,
};
use tracing::warn;

use super::Admin;

/// What is logged.
pub(super) async fn get(State(admin): State<Admin>) -> String {
    admin.log_level.get() + "\n"
}

/// Logs something else: the body is a level or a filter, as `--log-level` takes it.
pub(super) async fn put(
    State(admin): State<Admin>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: String,
) -> (StatusCode, String) {
    if !from.ip().to_canonical().is_loopback() {
        let sentence = "the level of the log is changed from the pod or machine itself alone\n";
        return (StatusCode::FORBIDDEN, sentence.to_owned());
    }
    let level = body.trim();
    match admin.log_level.set(level) {
        Ok(()) => {
            // At a level that is logged unless nothing is: who reads the log learns why it changes.
            warn!(level, "the level of the log was changed");
            (StatusCode::OK, format!("{level}\n"))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
