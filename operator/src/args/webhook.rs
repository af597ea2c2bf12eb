//! How pods are given a sidecar.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

/// Where the command's help has this.
const HEADING: &str = "Injection";

/// How pods are given a sidecar: by a webhook that the API server calls.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct Webhook {
    /// Where the API server finds the webhook, over TLS, by an address as --listen takes it. Absent: there is none.
    #[arg(long, value_name = "ADDRESS")]
    pub webhook_listen: Option<SocketAddr>,
    /// The Service that leads there, in the operator's namespace: its certificate is for that name.
    #[arg(long, value_name = "NAME", default_value = "embark-webhook")]
    pub webhook_service: String,
    /// The MutatingWebhookConfiguration that is told which authority vouches for the webhook.
    #[arg(long, value_name = "NAME", default_value = "embark")]
    pub webhook_configuration: String,
    /// The Secret that the certificates are kept in, in the operator's namespace. It is made when it is not there.
    #[arg(long, value_name = "NAME", default_value = "embark-webhook")]
    pub webhook_secret: String,
    /// A folder with tls.crt and tls.key that somebody else keeps, such as cert-manager: then the operator makes no
    /// certificates, and leaves the MutatingWebhookConfiguration alone.
    #[arg(long, value_name = "DIR")]
    pub webhook_cert_dir: Option<PathBuf>,
    /// How long a certificate holds. Another is made when a third of that is left.
    #[arg(long, value_name = "DURATION", default_value = "2160h", value_parser = duration, hide = true)]
    pub webhook_validity: Duration,
    /// How long the cluster is given to hear of a new authority before a certificate of it is shown.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, hide = true)]
    pub webhook_settle: Duration,
    /// How often certificates are looked at.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, hide = true)]
    pub webhook_every: Duration,
    /// How long pods are still answered for after SIGTERM, while the API server hears of it.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, hide = true)]
    pub webhook_drain: Duration,
}

// === impl Webhook ===

impl Default for Webhook {
    /// No webhook.
    fn default() -> Self {
        Webhook {
            webhook_listen: None,
            webhook_service: String::new(),
            webhook_configuration: String::new(),
            webhook_secret: String::new(),
            webhook_cert_dir: None,
            webhook_validity: Duration::ZERO,
            webhook_settle: Duration::ZERO,
            webhook_every: Duration::ZERO,
            webhook_drain: Duration::ZERO,
        }
    }
}

// === free functions ===

/// A duration as manifests write them.
fn duration(text: &str) -> Result<Duration, String> {
    let allowed = || "is not a duration of 1ms or more, such as 500ms, 5s or 1m30s".to_owned();
    let parsed = embark_crds::resolve::duration::parse(text);
    parsed.filter(|duration| !duration.is_zero()).ok_or_else(allowed)
}
