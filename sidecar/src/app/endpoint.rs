//! Where the process is called, and what lets callers in: ports, a socket, certificates, tokens.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    args,
    cli::Failure,
    config::Config,
    grpc::server::Endpoint,
    listen::{self, Listener, Secrets, Socket},
    metrics::{EndpointMetrics, SecretKind},
    secrets::{Named, News},
};

/// How often files are read.
const EVERY: Duration = Duration::from_secs(1);

/// What the process was bound to.
pub(super) struct Listeners {
    grpc: TcpListener,
    socket: Option<Socket>,
    admin: TcpListener,
}

// === impl Listeners ===

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Self, Failure> {
        let bound = |path: &PathBuf| {
            Socket::bind(path)
                .map_err(|error| Failure::Run(format!("--socket: {}: {error}", path.display())))
        };
        Ok(Listeners {
            grpc: bind("--listen", config.listen).await?,
            socket: config.endpoint.socket.as_ref().map(bound).transpose()?,
            admin: bind("--admin-listen", config.admin_listen).await?,
        })
    }

    /// Says where the process listens.
    pub(super) fn announce(&self) {
        let address = |listener: &TcpListener| {
            listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
        };
        let (grpc, admin) = (address(&self.grpc), address(&self.admin));
        let socket = self.socket.as_ref().map(|socket| socket.path().display().to_string());
        let version = env!("CARGO_PKG_VERSION");
        info!(grpc, admin, socket, version, "listening");
    }

    /// The admin port, and where gRPC is served.
    pub(super) fn split(
        self,
        secrets: &Secrets,
        metrics: EndpointMetrics,
    ) -> (TcpListener, Endpoint) {
        let port = match &secrets.tls {
            None => Listener::Tcp(self.grpc),
            Some(tls) => Listener::Tls(self.grpc, Arc::clone(tls), metrics.clone()),
        };
        let listeners = [port].into_iter().chain(self.socket.map(Listener::Unix)).collect();
        (self.admin, Endpoint { listeners, tokens: secrets.tokens.clone(), metrics })
    }
}

// === free functions ===

/// Reads what lets callers in.
///
/// # Errors
/// A file is missing, or is not what it should be.
pub(super) fn secrets(arguments: &args::Endpoint) -> Result<Secrets, Failure> {
    let named = |argument, path: &Option<PathBuf>| {
        path.as_ref().map(|path| Named { argument, path: path.clone() })
    };
    let pair = [
        named("--tls-cert", &arguments.tls_cert),
        named("--tls-key", &arguments.tls_key),
        named("--tls-client-ca", &arguments.tls_client_ca),
    ];
    let tls: Vec<Named> = pair.into_iter().flatten().collect();
    let token = named("--token-file", &arguments.token_file);
    Secrets::read(tls, token).map_err(Failure::Usage)
}

/// Says what anybody on the way can read.
pub(super) fn warn_of_cleartext(secrets: &Secrets, listen: SocketAddr) {
    if secrets.tokens.is_some() && secrets.tls.is_none() && !listen.ip().is_loopback() {
        warn!("tokens are asked for without TLS: whoever can listen on the way learns them");
    }
}

/// Follows the files: one that was replaced is used without a restart, for connections and calls that begin then.
pub(super) fn follow(secrets: &Secrets, metrics: EndpointMetrics) -> JoinHandle<()> {
    let secrets = secrets.clone();
    tokio::spawn(async move {
        if secrets.tls.is_none() && secrets.tokens.is_none() {
            return;
        }
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let looking = secrets.clone();
            // Off the threads that answer: a file system may take its time.
            match spawn_blocking(move || looking.look()).await {
                Ok(news) => news.into_iter().for_each(|(kind, new)| hear(&metrics, kind, &new)),
                Err(error) => return error!("secrets are not followed any more: {error}"),
            }
        }
    })
}

fn hear(metrics: &EndpointMetrics, kind: SecretKind, new: &News) {
    let what = match kind {
        SecretKind::Tls => "the certificate",
        SecretKind::Token => "the tokens",
    };
    match new {
        News::Replaced => {
            metrics.reloaded(kind, true);
            info!("{what} changed, and what is new is used");
        }
        News::Back => info!("{what} can be read again, and did not change"),
        News::Refused(sentence) => {
            metrics.reloaded(kind, false);
            warn!(
                "{what} changed and cannot be used, and what was read before still is: {sentence}"
            );
        }
    }
}

async fn bind(argument: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    listen::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
            _ => error.to_string(),
        };
        Failure::Run(format!("{argument}: {address} cannot be listened on: {why}"))
    })
}
