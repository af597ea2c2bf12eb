//! The port that the API server calls: what agrees on encryption there, and how much it takes.

use std::sync::Arc;

use rustls::{ServerConfig, crypto::ring};
use tokio_rustls::TlsAcceptor;

use super::keeper::Certificate;
use crate::port::Bounds;

/// The most bytes of a question: the API server's own bound of what it is sent.
const MOST_BYTES: usize = 3 * 1024 * 1024;
/// What the port takes. An API server holds a few connections, and most questions have some kilobytes.
pub(super) const BOUNDS: Bounds =
    Bounds { connections: 256, body_bytes: MOST_BYTES, all_bodies_bytes: 8 * MOST_BYTES };

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
