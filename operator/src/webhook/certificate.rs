//! Certificates of the operator's own making, and when they end. It knows nothing of where they are kept.
//!
//! Each serving certificate has an authority of its own, whose key is thrown away as soon as it has signed: there is nothing
//! that could sign another, and to trust an old authority for a while costs nothing.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
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
        let expires = end(leaf).ok_or("the certificate does not say until when it holds")?;
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

/// Until when a certificate holds.
pub(super) fn end(certificate: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    let (content, _) = expect(SEQUENCE, certificate)?;
    let (mut fields, _) = expect(SEQUENCE, content)?;
    if let Some((_, rest)) = expect(VERSION, fields) {
        fields = rest;
    }
    let (_, fields) = expect(INTEGER, fields)?;
    let (_, fields) = expect(SEQUENCE, fields)?;
    let (_, fields) = expect(SEQUENCE, fields)?;
    let (validity, _) = expect(SEQUENCE, fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    time(tag, text)
}

/// The content of the first element, which has this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// The tag and content of the first element, and what follows it (X.690, definite lengths).
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime or GeneralizedTime, as certificates write them (RFC 5280, 4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, digits) = match (tag, digits.len()) {
        (0x17, 12) => {
            let short = number(&digits[..2]);
            (if short < 50 { 2000 + short } else { 1900 + short }, &digits[2..])
        }
        (0x18, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| i8::try_from(number(&digits[at..at + 2])).ok();
    let [month, day, hour, minute, second] = [part(0)?, part(2)?, part(4)?, part(6)?, part(8)?];
    let time = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn number(digits: &[u8]) -> i16 {
    digits.iter().fold(0, |number, digit| number * 10 + i16::from(digit - b'0'))
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

    #[test]
    fn both_ways_to_write_a_time_are_read_and_nothing_else_is() {
        assert_eq!(time(0x17, b"260131120000Z"), Some(at("2026-01-31T12:00:00Z")));
        assert_eq!(time(0x17, b"991231235959Z"), Some(at("1999-12-31T23:59:59Z")));
        assert_eq!(time(0x18, b"20500101000000Z"), Some(at("2050-01-01T00:00:00Z")));
        for (tag, text) in [
            (0x17, &b"261331120000Z"[..]),
            (0x17, b"20260131120000Z"),
            (0x18, b"260131120000Z"),
            (0x17, b"26013112000-Z"),
            (0x17, b"260131120000"),
            (0x30, b"260131120000Z"),
        ] {
            assert_eq!(time(tag, text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let pem = make(HOST, DAY, at("2026-01-31T12:00:00Z")).unwrap().pair.certificate;
        let whole = certificates(&pem).unwrap().remove(0).to_vec();
        for cut in 0..whole.len().min(300) {
            let _ = end(&whole[..cut]);
            let mut damaged = whole.clone();
            damaged[cut] ^= 0xff;
            let _ = end(&damaged);
        }
        assert_eq!(end(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
