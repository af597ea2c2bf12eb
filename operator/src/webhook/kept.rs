//! What the Secret holds, and what it should hold instead. Pure.
//!
//! ```text
//! nothing, or nothing of use → a pair, and its authority is trusted
//! a third of its time is left → another pair waits; both authorities are trusted
//! the cluster has heard of it → it is shown; the authority before is trusted until it ends
//! ```

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, jiff::Timestamp};

use super::certificate::{Made, Pair, Shown, certificates, make};
use crate::x509;

const AUTHORITIES: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const NEXT_SINCE: &str = "next.since";

/// The most authorities that are trusted at a time.
const MOST_AUTHORITIES: usize = 4;

/// What certificates are for, and how long they hold.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The host's name.
    pub(super) host: String,
    /// How long a certificate holds.
    pub(super) validity: Duration,
    /// How long an authority is known before a certificate of it is shown.
    pub(super) settle: Duration,
}

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Who may vouch for what is shown, in PEM: the newest first.
    pub(super) authorities: String,
    /// What is shown.
    pub(super) pair: Pair,
    /// What will be, and since when it waits.
    next: Option<(Pair, Timestamp)>,
}

/// What is to be done about what the Secret holds.
pub(super) enum Judged {
    /// Nothing; this is shown.
    Good(Shown),
    /// This is shown, and the Secret is to hold something else: why, and what.
    Change(Shown, &'static str, Kept),
}

// === impl Kept ===

impl Kept {
    /// A new pair.
    ///
    /// # Errors
    /// It cannot be made, a sentence.
    pub(super) fn new(terms: &Terms, now: Timestamp) -> Result<Self, String> {
        let Made { authority, pair } = make(&terms.host, terms.validity, now)?;
        Ok(Kept { authorities: authority, pair, next: None })
    }

    /// What a Secret's data says.
    ///
    /// # Errors
    /// A key is missing or is no text, a sentence.
    pub(super) fn read(data: &BTreeMap<String, ByteString>) -> Result<Self, String> {
        let text = |key: &str| {
            let bytes = data.get(key).ok_or_else(|| format!("{key} is missing"))?;
            String::from_utf8(bytes.0.clone()).map_err(|_| format!("{key} is no text"))
        };
        let pair = Pair { certificate: text(CERTIFICATE)?, key: text(KEY)? };
        // What waits and cannot be used is made anew.
        let next = || {
            let pair =
                Pair { certificate: text(NEXT_CERTIFICATE).ok()?, key: text(NEXT_KEY).ok()? };
            Some((pair, text(NEXT_SINCE).ok()?.parse().ok()?))
        };
        Ok(Kept { authorities: text(AUTHORITIES)?, pair, next: next() })
    }

    /// A Secret's data.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::from([
            (AUTHORITIES, self.authorities.clone()),
            (CERTIFICATE, self.pair.certificate.clone()),
            (KEY, self.pair.key.clone()),
        ]);
        if let Some((next, since)) = &self.next {
            data.insert(NEXT_CERTIFICATE, next.certificate.clone());
            data.insert(NEXT_KEY, next.key.clone());
            data.insert(NEXT_SINCE, since.to_string());
        }
        let of_text = |(key, text): (&str, String)| (key.to_owned(), ByteString(text.into_bytes()));
        data.into_iter().map(of_text).collect()
    }

    /// What is shown now, and what the Secret should hold instead, if it should.
    ///
    /// # Errors
    /// It is of no use, a sentence: then all of it is to be made anew.
    pub(super) fn judge(&self, terms: &Terms, now: Timestamp) -> Result<Judged, String> {
        let shown = self.pair.vouched(&self.authorities, (&terms.host, now))?;
        let next = self
            .next
            .as_ref()
            .filter(|(next, _)| next.vouched(&self.authorities, (&terms.host, now)).is_ok());
        match next {
            Some((next, since)) if has_passed(*since, terms.settle, now) => {
                let kept = Kept { pair: next.clone(), next: None, ..self.clone() };
                Ok(Judged::Change(shown, "the cluster knows the new authority", kept))
            }
            Some(_) => Ok(Judged::Good(shown)),
            None if is_old(shown.expires, terms.validity, now) => {
                let Made { authority, pair } = make(&terms.host, terms.validity, now)?;
                let authorities = with(authority, &self.authorities, now)?;
                let kept = Kept { authorities, next: Some((pair, now)), ..self.clone() };
                Ok(Judged::Change(shown, "the certificate ends soon", kept))
            }
            None => Ok(Judged::Good(shown)),
        }
    }
}

// === free functions ===

fn has_passed(since: Timestamp, wait: Duration, now: Timestamp) -> bool {
    now.duration_since(since).unsigned_abs() >= wait
}

/// Whether no more than a third of its time is left.
fn is_old(expires: Timestamp, validity: Duration, now: Timestamp) -> bool {
    let left = expires.duration_since(now);
    left.is_negative() || left.unsigned_abs() <= validity / 3
}

/// An authority, and those of before that have not ended.
fn with(newest: String, before: &str, now: Timestamp) -> Result<String, String> {
    let mut all = newest;
    let has_ended = |der: &[u8]| x509::end(der).is_none_or(|end| end <= now);
    for der in certificates(before)?.iter().filter(|der| !has_ended(der)).take(MOST_AUTHORITIES - 1)
    {
        all.push_str(&pem(der));
    }
    Ok(all)
}

/// As rcgen writes it.
fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            host: "service.namespace.svc".to_owned(),
            validity: Duration::from_secs(900),
            settle: Duration::from_secs(60),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn changed(kept: &Kept, now: Timestamp) -> Kept {
        match kept.judge(&terms(), now).unwrap() {
            Judged::Change(_, _, kept) => kept,
            Judged::Good(_) => panic!("nothing is to be done"),
        }
    }

    fn is_good(kept: &Kept, now: Timestamp) -> bool {
        matches!(kept.judge(&terms(), now), Ok(Judged::Good(_)))
    }

    #[test]
    fn what_is_kept_reads_back() {
        let kept = Kept::new(&terms(), at(0)).unwrap();
        assert!(Kept::read(&kept.data()).unwrap() == kept);
        let next = changed(&kept, at(600));
        assert!(next.next.is_some() && Kept::read(&next.data()).unwrap() == next);
    }

    #[test]
    fn a_rotation_shows_nothing_that_the_cluster_has_not_heard_of() {
        let kept = Kept::new(&terms(), at(0)).unwrap();
        assert!(is_good(&kept, at(599)));
        let waiting = changed(&kept, at(600));
        // The old one is shown still, and both are trusted.
        assert!(waiting.pair == kept.pair && is_good(&waiting, at(659)));
        assert_eq!(certificates(&waiting.authorities).unwrap().len(), 2);
        let after = changed(&waiting, at(660));
        assert!(after.pair != kept.pair && after.authorities == waiting.authorities);
        assert!(is_good(&after, at(660)) && is_good(&after, at(1199)));
        // Who still shows the old one is trusted.
        let host = terms().host;
        assert!(kept.pair.vouched(&after.authorities, (&host, at(700))).is_ok());
        // An authority goes when it has ended.
        let later = changed(&after, at(1200));
        assert_eq!(certificates(&later.authorities).unwrap().len(), 2);
    }

    #[test]
    fn what_is_of_no_use_is_told() {
        let kept = Kept::new(&terms(), at(0)).unwrap();
        assert!(kept.judge(&terms(), at(901)).is_err());
        let other = Terms { host: "other.namespace.svc".to_owned(), ..terms() };
        assert!(kept.judge(&other, at(0)).is_err());
        let mut data = kept.data();
        data.remove(AUTHORITIES);
        assert_eq!(Kept::read(&data).err().unwrap(), "ca.crt is missing");
        // What waits is made anew when it is of no use.
        let mut data = changed(&kept, at(600)).data();
        data.insert(NEXT_KEY.to_owned(), ByteString(b"garbage".to_vec()));
        let damaged = Kept::read(&data).unwrap();
        assert!(changed(&damaged, at(600)).pair == kept.pair);
    }
}
