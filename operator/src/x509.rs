//! Until when a certificate holds: all that is asked of its bytes here.

use k8s_openapi::jiff::Timestamp;

/// Until when a certificate in DER holds; `None`: it is no certificate.
pub(crate) fn end(certificate: &[u8]) -> Option<Timestamp> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(read.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_and_damage_makes_no_panic() {
        let pem = include_bytes!("../tests/authority.crt");
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        assert_eq!(end(&certificate).unwrap().to_string(), "2051-07-14T21:07:42Z");
        for at in 0..certificate.len() {
            assert_eq!(end(&certificate[..at]), None, "{at}");
            let mut damaged = certificate.to_vec();
            damaged[at] ^= 0xff;
            let _ = end(&damaged);
        }
    }
}
