//! The port that the API server calls: TLS, bounded in connections, bytes and time.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{ServerConfig, crypto::ring};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::keeper::Certificate;

/// Connections at a time. An API server holds a few.
const CONNECTIONS: usize = 256;
/// How long a client may take to agree on encryption.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a client may take to ask, and a connection may rest.
const HEADER: Duration = Duration::from_secs(60);
/// The most bytes of a request's head.
const HEAD_BYTES: usize = 64 * 1024;
/// How long a failed accept rests: the process may be short of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long answers may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Answers until `stop` resolves; then what was asked is still answered.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    routes: Router,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (ending, ended) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
            // What has ended is forgotten.
            Some(_) = connections.join_next() => continue,
        };
        let (tls, routes, ended) = (tls.clone(), routes.clone(), ended.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, (tls, routes), ended).await {
                debug!("a connection of the webhook ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    ending.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, all).await.is_err() {
        debug!("connections of the webhook were left behind");
    }
}

/// What agrees on encryption, with the certificate of the moment.
pub(super) fn acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // It is never closed. Who comes when there is no place waits.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                debug!("a connection of the webhook could not be taken: {error}");
                sleep_until(Instant::now() + ACCEPT_REST).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    (tls, routes): (TlsAcceptor, Router),
    mut ended: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = timeout(HANDSHAKE, tls.accept(stream)).await??;
    let service = TowerToHyperService::new(routes);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return Ok(served?),
        // An error: the listener is gone.
        _ = ended.wait_for(|ended| *ended) => serving.as_mut().graceful_shutdown(),
    }
    Ok(serving.await?)
}

/// Where it listens.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
