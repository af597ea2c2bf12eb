//! How a server proves who it is, and asks clients to.

use std::sync::Arc;

use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use crate::secrets::{
    Content,
    pem::{self, certificates},
};

/// What HTTP/2 is called when a connection is begun.
const H2: &[u8] = b"h2";

/// What connections are encrypted by: of a chain of certificates, its key, and, when clients are to prove who they are, the
/// authorities that vouch for them; each in PEM.
///
/// # Errors
/// One of them is none, or they do not fit each other.
pub(super) fn config(contents: &[Content]) -> Result<ServerConfig, String> {
    let (chain, key, authorities) = match contents {
        [chain, key] => (chain, key, None),
        [chain, key, authorities] => (chain, key, Some(authorities)),
        _ => return Err("TLS takes a chain of certificates and a key".to_owned()),
    };
    let secret = pem::key(key)?;
    let builder = match authorities {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(authorities) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots(authorities)?)).build();
            let verifier = verifier.map_err(|error| authorities.wrong(error))?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(certificates(chain)?, secret);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InvalidCertificate(_) => chain.wrong(error),
        _ => key.wrong(format!("does not serve the certificate of --tls-cert: {error}")),
    })?;
    config.alpn_protocols = vec![H2.to_owned()];
    Ok(config)
}

fn roots(authorities: &Content) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(|error| authorities.wrong(error))?;
    }
    Ok(roots)
}
