//! What is fuzzed: for every place where bytes of others are read, a function that takes any bytes, has them read as the
//! server does, and panics where something does not hold that must always hold. `fuzz/` has a target for each of them, and
//! tests/corpora.rs replays what the targets are fed. The server uses none of this.

use std::time::Duration;

use bytes::Bytes;
use embark_crds::{
    contract::{Channels, Contract, ImageDtype, ImageInput, ImageUrls, Layout, Resize},
    digest::SpaceId,
    manifest::{self, Manifest},
    resolve::{Target, resolve},
};

pub use crate::grpc::fuzzing::{grpc_timeout, request};
use crate::{
    cache::entry::{HEADER_BYTES, Record},
    error::{Error, ErrorKind},
    fetch::AddressPolicy,
    input::{ImageUrl, MAX_URL_BYTES, URL_FIELD},
    key::CacheKey,
    model::{
        engine::RowData,
        image::{IMAGE_FIELD, ImagePreparer},
        refusal::Refusal,
        tract,
        vocabulary::{MAX_ID_BYTES, VOCABULARY, Vocabulary},
    },
};

/// Where a record's checksum stands, and how its bytes are bound to it: written here once more, so that neither changes
/// unnoticed.
const CHECKSUM: std::ops::Range<usize> = 8..24;
/// The most errors that are told of one manifest.
const MOST_ERRORS: usize = 64;

/// The hosts that [`url`] allows: among them one that no address policy does.
const ALLOWED_HOSTS: [&str; 5] =
    ["images.example.com", "*.cdn.example.com", "ports.example.com:8080", "10.1.2.3", "127.0.0.1"];

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They mean something.
    Taken,
    /// They do not, and it was said why.
    Refused,
}

/// Bytes that a store gives back for [`record_key`], as they are and with the checksum that they should have.
///
/// # Panics
/// A record is not written as it was read, or is taken for another key, another length or with a bit changed.
pub fn record(bytes: &[u8]) -> Verdict {
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    decode(&sealed);
    decode(bytes)
}

/// The key that [`record`] reads records under.
pub fn record_key() -> CacheKey {
    CacheKey::from_bytes([7; 32])
}

/// Gives a record of [`record_key`] the checksum that its bytes should have. What is shorter than a header stays as it is.
pub fn seal(record: &mut [u8]) {
    let Some((header, vector)) = record.split_at_mut_checked(HEADER_BYTES) else { return };
    let mut hasher = blake3::Hasher::new();
    hasher.update(record_key().as_bytes());
    hasher.update(&header[..CHECKSUM.start]).update(&header[CHECKSUM.end..]).update(vector);
    header[CHECKSUM].copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM.len()]);
}

/// A manifest: what is read must resolve, or be refused with a sentence.
///
/// # Panics
/// Something is refused without a sentence, or a contract cannot be told on.
pub fn manifest(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else { return Verdict::Refused };
    match manifest::read(text) {
        Ok(manifests) => {
            let taken: usize = manifests.iter().map(resolved).sum();
            if taken > 0 { Verdict::Taken } else { Verdict::Refused }
        }
        Err(errors) => {
            said(errors.iter().map(ToString::to_string).collect());
            Verdict::Refused
        }
    }
}

/// The file of an image, for a model of few pixels.
///
/// # Panics
/// What is made of it has another size than the model's, or it is refused without a word of why.
pub fn image(bytes: &[u8]) -> Verdict {
    let images = ImagePreparer::new(&ImageInput {
        width: 9,
        height: 7,
        resize: Resize::FitCrop,
        layout: Layout::Nchw,
        channels: Channels::Bgr,
        dtype: ImageDtype::Float32,
        mean: vec![0.5],
        std: vec![0.25],
        size_limit: 1 << 20,
        max_pixels: 1 << 20,
        urls: None,
    });
    match images.prepare(bytes) {
        Ok(row) => {
            let RowData::Tensor(values) = row.data else { panic!("an image has no tokens") };
            assert_eq!(values.len(), images.row_bytes());
            Verdict::Taken
        }
        Err(error) => {
            assert_eq!(error.kind, ErrorKind::ImageUndecodable, "{error}");
            assert_eq!(error.field, IMAGE_FIELD);
            assert!(!error.value.is_empty() && !error.allowed.is_empty(), "{error:?}");
            said(vec![error.message.clone()]);
            Verdict::Refused
        }
    }
}

/// The URL of an image, as a caller gives it and as a server redirects to it, for a model that allows some hosts and a range
/// of private addresses.
///
/// # Panics
/// What is taken is of another host, or could be read in two ways; or it is refused without a word of why.
pub fn url(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else { return Verdict::Refused };
    let allowed = ImageUrls {
        allowed_hosts: ALLOWED_HOSTS.map(str::to_owned).to_vec(),
        allowed_cidrs: vec!["10.0.0.0/8".to_owned()],
        timeout: Duration::from_secs(2),
    };
    let base = ImageUrl::parse("https://images.example.com/a/b", &allowed);
    match base.expect("it is allowed").redirected(text, &allowed) {
        Ok(url) => assert!(allowed_url(&url, &allowed).starts_with("https://")),
        Err(error) => refused_url(&error),
    }
    let url = match ImageUrl::parse(text, &allowed) {
        Ok(url) => url,
        Err(error) => {
            refused_url(&error);
            return Verdict::Refused;
        }
    };
    allowed_url(&url, &allowed);
    let policy = AddressPolicy::of(&allowed.allowed_cidrs);
    let judged = url.literal().map(|address| (address, policy.check(address)));
    match judged {
        None | Some((_, Ok(()))) => Verdict::Taken,
        Some((address, Err(_))) => {
            assert!(address.is_loopback(), "{address} is private");
            Verdict::Refused
        }
    }
}

/// The file of a vocabulary.
///
/// # Panics
/// An id has another row than its line's number, or what is in no line has one, or a file is refused without a word of why.
pub fn vocabulary(bytes: &[u8]) -> Verdict {
    let vocabulary = match Vocabulary::load(Bytes::copy_from_slice(bytes)) {
        Ok(vocabulary) => vocabulary,
        Err(refusal) => return not_loaded(&refusal, VOCABULARY),
    };
    let text = std::str::from_utf8(bytes).expect("it was taken");
    let mut rows = 0;
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).split_terminator('\n') {
        let id = line.strip_suffix('\r').unwrap_or(line);
        rows += 1;
        assert_eq!(vocabulary.row(id.as_bytes()), Some(rows), "{id:?}");
        assert!((1..=MAX_ID_BYTES).contains(&id.len()));
        let other = format!("{id}\n");
        assert_eq!(vocabulary.row(other.as_bytes()), None);
    }
    assert_eq!(vocabulary.len(), rows);
    assert_eq!(vocabulary.row(b""), None);
    Verdict::Taken
}

/// The file of a model, up to where the runtime would read it.
///
/// # Panics
/// It is refused without a word of why.
pub fn onnx(bytes: &[u8]) -> Verdict {
    match tract::check(bytes) {
        Ok(()) => Verdict::Taken,
        Err(refusal) => not_loaded(&refusal, "spec.model.source"),
    }
}

/// Runs a target on the files that the program is given: without libFuzzer, that is all that it does.
///
/// # Errors
/// A file cannot be read.
pub fn replay(target: fn(&[u8]) -> Verdict) -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|file| {
        target(&std::fs::read(file)?);
        Ok(())
    })
}

fn not_loaded(refusal: &Refusal, field: &str) -> Verdict {
    /// A sentence is for a person's eyes.
    const LONGEST: usize = 4096;
    assert_eq!(refusal.field, field);
    assert!(refusal.sentence.len() <= LONGEST, "{} bytes", refusal.sentence.len());
    said(vec![refusal.sentence.clone()]);
    Verdict::Refused
}

fn decode(bytes: &[u8]) -> Verdict {
    let dimensions = bytes.len().saturating_sub(HEADER_BYTES) / 4;
    let of = |key: &CacheKey, bytes: &[u8], dimensions| {
        Record::decode(key, Bytes::copy_from_slice(bytes), dimensions)
    };
    let key = record_key();
    let Ok(record) = of(&key, bytes, dimensions) else { return Verdict::Refused };
    assert!(record.encode(&key) == bytes, "it is written as it was read");
    assert!(of(&CacheKey::from_bytes([8; 32]), bytes, dimensions).is_err(), "it is of one key");
    if let Record::Entry(entry) = record {
        assert_eq!(entry.vector.as_bytes(), &bytes[HEADER_BYTES..]);
        assert!(of(&key, bytes, dimensions + 1).is_err(), "it is of one length");
    }
    // A bit of each byte of the header, and of some of the vector.
    for at in (0..HEADER_BYTES).chain((HEADER_BYTES..bytes.len()).step_by(61)) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        assert!(of(&key, &flipped, dimensions).is_err(), "a bit of byte {at} went unseen");
    }
    Verdict::Taken
}

/// For how many targets a manifest resolves.
fn resolved(Manifest { metadata, spec }: &Manifest) -> usize {
    let mut taken = 0;
    for target in [Target::Local, Target::Cluster] {
        match resolve(&metadata.name, spec, target) {
            Ok(contract) => {
                holds(&contract);
                taken += 1;
            }
            Err(errors) => {
                assert!(errors.iter().all(|error| !error.field.is_empty()), "{errors:?}");
                said(errors.iter().map(ToString::to_string).collect());
            }
        }
    }
    taken
}

/// The sidecar reads the contract that the operator writes, and it is within its bounds.
fn holds(contract: &Contract) {
    let json = serde_json::to_string(contract).expect("a contract can be written");
    let read: Contract = serde_json::from_str(&json).expect("a contract can be read");
    assert_eq!(read, *contract);
    let serving = &contract.serving;
    assert_eq!(SpaceId::of(&read.serving), SpaceId::of(serving));
    assert!(serving.output.default_dimensions <= serving.output.dimensions);
    assert!((1..=1024).contains(&serving.max_request_items()));
    assert!(serving.max_request_bytes() > serving.max_item_bytes());
    assert!((1..=45).contains(&serving.name.len()), "{:?}", serving.name);
}

/// What is taken is spelled in one way, and is of an allowed host by a reading that knows no URLs.
fn allowed_url<'a>(url: &'a ImageUrl, allowed: &ImageUrls) -> &'a str {
    let text = url.as_str();
    assert_eq!(ImageUrl::parse(text, allowed).as_ref(), Ok(url), "it is read as it is written");
    assert!(text.len() <= MAX_URL_BYTES && text.is_ascii() && !text.contains(['#', ' ', '\n']));
    let (scheme, rest) = text.split_once("://").expect("a scheme");
    assert!(["http", "https"].contains(&scheme), "{text}");
    let (authority, _) = rest.split_once('/').expect("a path");
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_usual = ["", "80", "443"].contains(&port);
    let below = host.strip_suffix(".cdn.example.com");
    let is_allowed = match host {
        "images.example.com" | "10.1.2.3" | "127.0.0.1" => is_usual,
        "ports.example.com" => port == "8080",
        _ => is_usual && below.is_some_and(|labels| labels.split('.').all(|l| !l.is_empty())),
    };
    assert!(is_allowed, "{text}");
    text
}

fn refused_url(error: &Error) {
    let kinds = [ErrorKind::Malformed, ErrorKind::UrlNotAllowed, ErrorKind::UrlFailed];
    assert!(kinds.contains(&error.kind), "{error}");
    assert_eq!(error.field, URL_FIELD);
    assert!(!error.allowed.is_empty() && error.message.len() < 1024, "{error:?}");
    said(vec![error.message.clone()]);
}

fn said(sentences: Vec<String>) {
    assert!((1..=MOST_ERRORS).contains(&sentences.len()), "{} errors", sentences.len());
    assert!(sentences.iter().all(|sentence| !sentence.trim().is_empty()), "{sentences:?}");
}
