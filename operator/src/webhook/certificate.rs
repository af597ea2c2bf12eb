//! Certificates of the operator's own making, and when they end. It knows nothing of where they are kept.
//!
//! Each serving certificate has an authority of its own, whose key is thrown away as soon as it has signed: there is nothing
//! that could sign another, and to trust an old authority for a while costs nothing.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::x509;

/// How long before it was made a certificate holds: clocks differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// A certificate and its key, in PEM. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What a server shows, and until when it may.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) expires: Timestamp,
}

/// A pair, and the authority that vouches for it, in PEM.
pub(super) struct Made {
    pub(super) authority: String,
    pub(super) pair: Pair,
}

/// Makes a pair for a host's name that holds from now on.
///
/// # Errors
/// A sentence: the name is none, or no key can be made.
pub(super) fn make(host: &str, validity: Duration, now: Timestamp) -> Result<Made, String> {
    let wrong = |error: rcgen::Error| format!("failed to make a certificate for {host}: {error}");
    let bounded = |mut parameters: CertificateParams| {
        let since_epoch = |time: Timestamp| {
            Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
        };
        let epoch = date_time_ymd(1970, 1, 1);
        parameters.not_before = epoch + since_epoch(now).saturating_sub(CLOCKS_DIFFER);
        parameters.not_after = epoch + since_epoch(now) + validity;
        parameters
    };
    let mut authority = bounded(CertificateParams::default());
    // Two authorities that are trusted at a time have two names.
    let name = format!("embark webhook {}", now.as_nanosecond());
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate().map_err(wrong)?;
    let authority_pem = authority.self_signed(&authority_key).map_err(wrong)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut leaf = bounded(CertificateParams::new(vec![host.to_owned()]).map_err(wrong)?);
    leaf.distinguished_name.push(DnType::CommonName, "embark webhook");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = leaf.signed_by(&key, &issuer).map_err(wrong)?.pem();
    let pair = Pair { certificate, key: key.serialize_pem() };
    Ok(Made { authority: authority_pem, pair })
}

// === impl Pair ===

impl Pair {
    /// What a server shows of it.
    ///
    /// # Errors
    /// It is no certificate, or the key is another's; a sentence without anything of the key.
    pub(super) fn shown(&self) -> Result<Shown, String> {
        let chain = certificates(&self.certificate)?;
        // The library's sentence might tell of the key.
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| "the key is no private key in PEM".to_owned())?;
        let leaf = chain.first().ok_or("there is no certificate")?;
        let expires = x509::end(leaf).ok_or("the certificate does not say until when it holds")?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
        Ok(Shown { key: Arc::new(key), expires })
    }

    /// The same, if an API server that trusts these authorities takes it for this host.
    ///
    /// # Errors
    /// It would not, a sentence.
    pub(super) fn vouched(
        &self,
        authorities: &str,
        (host, now): (&str, Timestamp),
    ) -> Result<Shown, String> {
        let shown = self.shown()?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities)? {
            roots
                .add(authority)
                .map_err(|error| format!("an authority cannot be used: {error}"))?;
        }
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| format!("there is no authority: {error}"))?;
        let host = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no host's name"))?;
        let [leaf, intermediates @ ..] = shown.key.cert.as_slice() else {
            return Err("there is no certificate".to_owned());
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verifier
            .verify_server_cert(leaf, intermediates, &host, &[], now)
            .map_err(|error| format!("the API server would not take it: {error}"))?;
        Ok(shown)
    }
}

// === free functions ===

/// Every certificate of a text in PEM.
///
/// # Errors
/// It is no such text.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.map_err(|error| format!("the certificates are not PEM: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "service.namespace.svc";
    const DAY: Duration = Duration::from_secs(86_400);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_holds_for_its_host_and_its_time() {
        let now = at("2026-01-31T12:00:00Z");
        let Made { authority, pair } = make(HOST, DAY, now).unwrap();
        let shown = pair.vouched(&authority, (HOST, now)).unwrap();
        assert_eq!(shown.expires, at("2026-02-01T12:00:00Z"));
        for (host, time, part) in [
            ("other.namespace.svc", now, "not valid for name"),
            (HOST, at("2026-02-01T12:00:01Z"), "expired"),
            (HOST, at("2026-01-31T10:59:59Z"), "not valid yet"),
        ] {
            let error = pair.vouched(&authority, (host, time)).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let other = make(HOST, DAY, now).unwrap();
        assert!(pair.vouched(&other.authority, (HOST, now)).is_err());
        // Who trusts both takes both.
        let both = format!("{authority}{}", other.authority);
        assert!(pair.vouched(&both, (HOST, now)).is_ok());
        assert!(other.pair.vouched(&both, (HOST, now)).is_ok());
    }

    #[test]
    fn what_is_no_pair_is_told_without_its_key() {
        let now = at("2026-01-31T12:00:00Z");
        let (one, other) = (make(HOST, DAY, now).unwrap(), make(HOST, DAY, now).unwrap());
        let garbage = || "garbage".to_owned();
        for (certificate, key, part) in [
            (one.pair.certificate.clone(), other.pair.key, "cannot be used"),
            (one.pair.certificate, garbage(), "no private key"),
            (garbage(), one.pair.key, "no certificate"),
        ] {
            let error = Pair { certificate, key }.shown().unwrap_err();
            assert!(error.contains(part) && !error.contains("garbage"), "{error}");
        }
    }
}
