//! `/config`: what the process was started with, and the policies in force. No secret is in it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Json, extract::State};
use embark_crds::contract::{CachePolicy, ServingConfig};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::Admin;
use crate::config::Config;

/// What stands in the place of what may be a secret.
const HIDDEN: &str = "hidden";

/// What the process was started with, beside its models.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    listen: SocketAddr,
    admin_listen: SocketAddr,
    data_dir: PathBuf,
    drain_wait_ms: u64,
    max_connection_age_ms: u64,
    instance: String,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
    socket: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    version: &'static str,
    settings: &'a Settings,
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    serving: &'a ServingConfig,
    policy: CachePolicy,
    policy_hash: String,
}

// === impl Settings ===

impl Settings {
    /// The settings of a server.
    pub fn of(config: &Config) -> Self {
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis());
        Settings {
            listen: config.listen,
            admin_listen: config.admin_listen,
            data_dir: config.data_dir.clone(),
            drain_wait_ms: ms(config.drain_wait).unwrap_or(u64::MAX),
            max_connection_age_ms: ms(config.max_connection_age).unwrap_or(u64::MAX),
            instance: config.instance.clone(),
            tls_cert: config.endpoint.tls_cert.clone(),
            tls_key: config.endpoint.tls_key.clone(),
            tls_client_ca: config.endpoint.tls_client_ca.clone(),
            token_file: config.endpoint.token_file.clone(),
            socket: config.endpoint.socket.clone(),
        }
    }
}

// === free functions ===

pub(super) async fn get(State(admin): State<Admin>) -> Json<Value> {
    let served: Vec<_> = admin.models.iter().collect();
    let policies: Vec<_> = served.iter().map(|model| model.policy.load()).collect();
    let models = served.iter().zip(&policies).map(|(model, policy)| Model {
        serving: &model.contract.serving,
        policy: policy.cache.clone(),
        policy_hash: policy.hash.clone(),
    });
    let settings: &Arc<Settings> = &admin.settings;
    let told = Told { version: env!("CARGO_PKG_VERSION"), settings, models: models.collect() };
    // Values of ours have no keys that JSON lacks.
    let mut told = serde_json::to_value(told).unwrap_or_default();
    hide(&mut told);
    Json(told)
}

/// Takes out of addresses what may be a secret: who fetches, and what a signed address is signed with.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(shown) = shown(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Object(fields) => fields.values_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// An address without its secrets; `None`: it has none.
fn shown(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok().filter(|url| url.has_host())?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !has_user && url.query().is_none() {
        return None;
    }
    if has_user && (url.set_username(HIDDEN).is_err() || url.set_password(None).is_err()) {
        return Some(HIDDEN.to_owned());
    }
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fetches_and_signatures_are_hidden_and_the_rest_is_shown() {
        for (text, expected) in [
            ("https://host/model.onnx", None),
            ("a text: with a colon", None),
            ("builtin://tiny/model.onnx", None),
            ("https://user:word@host/m", Some("https://hidden@host/m")),
            ("https://host/m?sig=abc&se=1", Some("https://host/m?hidden")),
            ("https://user@host/m?sig=abc", Some("https://hidden@host/m?hidden")),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
    }
}
