//! Certificates and keys, as files have them.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::Content;

/// Every certificate of a file; at least one.
///
/// # Errors
/// It has none, or is no PEM.
pub fn certificates(content: &Content) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(content.wrong("has no certificate in PEM")),
        Err(error) => Err(content.wrong(format!("is not PEM: {error}"))),
    }
}

/// The first private key of a file.
///
/// # Errors
/// It has none.
pub fn key(content: &Content) -> Result<PrivateKeyDer<'static>, String> {
    // The library's sentence might tell of the key.
    PrivateKeyDer::from_pem_slice(&content.bytes)
        .map_err(|_| content.wrong("has no private key in PEM"))
}
