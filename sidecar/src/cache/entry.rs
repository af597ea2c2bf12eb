//! What one cached vector is, and how it lies on disk. Pure: it knows neither clocks nor files.
//!
//! A record is bound to its key by a checksum over key, header and vector, so that a record that a store gives back for
//! another key, or with any bit changed, is an error and never a wrong vector.

use bytes::Bytes;

use crate::{
    embedding::{Embedding, Vector},
    key::CacheKey,
};

/// Bytes of a record before its vector.
pub const HEADER_BYTES: usize = 44;

const MAGIC: [u8; 4] = *b"EMBK";
const VERSION: u8 = 1;
const CHECKSUM: std::ops::Range<usize> = 8..24;
const TRUNCATED: u8 = 1;
const UNKNOWN_CATEGORY: u8 = 1 << 1;
const TOMBSTONE: u8 = 1 << 7;

/// A cached vector and how it came to be. Cloning shares the vector's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full vector. Its bytes are its own, or the tail of its own record's ([`HEADER_BYTES`] more stay in memory), and
    /// never a part of a buffer that many share: the memory tier weighs them alone.
    pub vector: Vector,
    /// When its computation began, in milliseconds since 1970.
    pub created_ms: u64,
    /// The policy's epoch at that time.
    pub epoch: u64,
    /// Tokens that the model read; 0 for inputs that are not text.
    pub tokens: u32,
    /// How many windows of the input were averaged; 0 or 1: it was not split.
    pub chunks: u16,
    /// Whether the input was cut to the model's length.
    pub truncated: bool,
    /// Whether the input was not in the vocabulary, so that the row of unknown ids answered.
    pub unknown_category: bool,
}

/// What a store holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A vector.
    Entry(Entry),
    /// A rule: entries of the key that were created at or before this time do not count.
    Tombstone {
        /// Milliseconds since 1970.
        before_ms: u64,
    },
}

/// Why bytes are not the record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than a header has.
    #[error("record of {0} bytes is shorter than its header")]
    Short(usize),
    /// The bytes are something else.
    #[error("record does not begin with its magic number")]
    Magic,
    /// Another version wrote it.
    #[error("record has version {0}")]
    Version(u8),
    /// It was changed, or belongs to another key.
    #[error("record does not match its checksum")]
    Checksum,
    /// It says what this version does not know.
    #[error("record has unknown flags {0:#010b}")]
    Flags(u8),
    /// Its vector has another length.
    #[error("record has a vector of {found} bytes, not {expected}")]
    Length {
        /// Bytes of the vector.
        found: usize,
        /// Bytes that the model's vectors have.
        expected: usize,
    },
}

/// The header's fields beside the time.
struct Numbers {
    flags: u8,
    chunks: u16,
    tokens: u32,
    epoch: u64,
}

// === impl Entry ===

impl Entry {
    /// What a computation that began at `created_ms` gave.
    pub fn of(embedding: &Embedding, created_ms: u64, epoch: u64) -> Self {
        Entry {
            vector: embedding.vector.clone(),
            created_ms,
            epoch,
            tokens: embedding.tokens,
            chunks: 0,
            truncated: embedding.truncated,
            unknown_category: false,
        }
    }
}

// === impl Record ===

impl Record {
    /// The record's bytes under `key`.
    pub fn encode(&self, key: &CacheKey) -> Vec<u8> {
        match self {
            Record::Entry(entry) => {
                let mut flags = 0;
                if entry.truncated {
                    flags |= TRUNCATED;
                }
                if entry.unknown_category {
                    flags |= UNKNOWN_CATEGORY;
                }
                let numbers = Numbers {
                    flags,
                    chunks: entry.chunks,
                    tokens: entry.tokens,
                    epoch: entry.epoch,
                };
                numbers.encode(key, entry.created_ms, entry.vector.as_bytes())
            }
            Record::Tombstone { before_ms } => {
                let numbers = Numbers { flags: TOMBSTONE, chunks: 0, tokens: 0, epoch: 0 };
                numbers.encode(key, *before_ms, &[])
            }
        }
    }

    /// The record that `bytes` are under `key`; its vector shares them.
    ///
    /// # Errors
    /// [`DecodeError`] when they are anything else than what [`Record::encode`] gave for this key.
    pub fn decode(key: &CacheKey, bytes: Bytes, dimensions: usize) -> Result<Self, DecodeError> {
        let Some((header, vector)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(DecodeError::Short(bytes.len()));
        };
        if header[..4] != MAGIC {
            return Err(DecodeError::Magic);
        }
        if header[4] != VERSION {
            return Err(DecodeError::Version(header[4]));
        }
        if header[CHECKSUM] != checksum(key, header, vector) {
            return Err(DecodeError::Checksum);
        }
        let (flags, time_ms) = (header[5], u64::from_le_bytes(part(header, 36)));
        let expected = if flags == TOMBSTONE { 0 } else { dimensions * 4 };
        if vector.len() != expected {
            return Err(DecodeError::Length { found: vector.len(), expected });
        }
        if flags == TOMBSTONE {
            // None of the other numbers means anything in one.
            if header[6..8].iter().chain(&header[24..36]).any(|byte| *byte != 0) {
                return Err(DecodeError::Flags(flags));
            }
            return Ok(Record::Tombstone { before_ms: time_ms });
        }
        if flags & !(TRUNCATED | UNKNOWN_CATEGORY) != 0 {
            return Err(DecodeError::Flags(flags));
        }
        Ok(Record::Entry(Entry {
            created_ms: time_ms,
            epoch: u64::from_le_bytes(part(header, 28)),
            tokens: u32::from_le_bytes(part(header, 24)),
            chunks: u16::from_le_bytes(part(header, 6)),
            truncated: flags & TRUNCATED != 0,
            unknown_category: flags & UNKNOWN_CATEGORY != 0,
            vector: Vector::from_le_bytes(bytes.slice(HEADER_BYTES..)),
        }))
    }
}

// === impl Numbers ===

impl Numbers {
    fn encode(&self, key: &CacheKey, time_ms: u64, vector: &[u8]) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = VERSION;
        header[5] = self.flags;
        header[6..8].copy_from_slice(&self.chunks.to_le_bytes());
        header[24..28].copy_from_slice(&self.tokens.to_le_bytes());
        header[28..36].copy_from_slice(&self.epoch.to_le_bytes());
        header[36..44].copy_from_slice(&time_ms.to_le_bytes());
        let sum = checksum(key, &header, vector);
        header[CHECKSUM].copy_from_slice(&sum);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + vector.len());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(vector);
        bytes
    }
}

// === free functions ===

/// The first 16 bytes of BLAKE3 over key, header without its checksum, and vector.
fn checksum(key: &CacheKey, header: &[u8; HEADER_BYTES], vector: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&header[..CHECKSUM.start]);
    hasher.update(&header[CHECKSUM.end..]);
    hasher.update(vector);
    let mut sum = [0; 16];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    sum
}

/// `N` bytes of the header from `at`.
fn part<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> CacheKey {
        CacheKey::from_bytes([seed; 32])
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let numbers = any::<(u64, u64, u32, u16, bool, bool)>();
        (prop::collection::vec(any::<f32>(), 1..64), numbers).prop_map(|(values, n)| Entry {
            vector: Vector::from_values(&values),
            created_ms: n.0,
            epoch: n.1,
            tokens: n.2,
            chunks: n.3,
            truncated: n.4,
            unknown_category: n.5,
        })
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(entry in entries(), seed: u8) {
            let dimensions = entry.vector.dimensions();
            let bytes = Record::Entry(entry.clone()).encode(&key(seed));
            let back = Record::decode(&key(seed), bytes.into(), dimensions);
            prop_assert_eq!(back, Ok(Record::Entry(entry)));
        }

        #[test]
        fn a_tombstone_comes_back_as_it_was(before_ms: u64, seed: u8) {
            let bytes = Record::Tombstone { before_ms }.encode(&key(seed));
            let back = Record::decode(&key(seed), bytes.into(), 8);
            prop_assert_eq!(back, Ok(Record::Tombstone { before_ms }));
        }

        #[test]
        fn any_bytes_are_an_error_and_not_a_panic(bytes: Vec<u8>, dimensions in 0_usize..64) {
            prop_assert!(Record::decode(&key(1), bytes.into(), dimensions).is_err());
        }

        #[test]
        fn a_cut_record_is_an_error(entry in entries(), cut in any::<prop::sample::Index>()) {
            let dimensions = entry.vector.dimensions();
            let mut bytes = Record::Entry(entry).encode(&key(1));
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(Record::decode(&key(1), bytes.into(), dimensions).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn every_flipped_bit_is_an_error(entry in entries()) {
            let dimensions = entry.vector.dimensions();
            let bytes = Record::Entry(entry).encode(&key(1));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let decoded = Record::decode(&key(1), flipped.into(), dimensions);
                prop_assert!(decoded.is_err(), "bit {} went unseen", bit);
            }
        }
    }

    #[test]
    fn a_record_of_another_key_is_an_error() {
        let bytes = Record::Tombstone { before_ms: 5 }.encode(&key(1));
        let decoded = Record::decode(&key(2), bytes.into(), 8);
        assert_eq!(decoded, Err(DecodeError::Checksum));
    }

    #[test]
    fn a_vector_of_another_length_is_an_error() {
        let embedding =
            Embedding { vector: Vector::from_values(&[1.0; 8]), tokens: 1, truncated: false };
        let bytes = Record::Entry(Entry::of(&embedding, 1, 0)).encode(&key(1));
        let decoded = Record::decode(&key(1), bytes.into(), 9);
        assert_eq!(decoded, Err(DecodeError::Length { found: 32, expected: 36 }));
    }

    #[test]
    fn a_decoded_vector_shares_the_bytes() {
        let embedding =
            Embedding { vector: Vector::from_values(&[1.0; 8]), tokens: 1, truncated: false };
        let bytes = Bytes::from(Record::Entry(Entry::of(&embedding, 1, 0)).encode(&key(1)));
        let Ok(Record::Entry(entry)) = Record::decode(&key(1), bytes.clone(), 8) else {
            panic!("the record is an entry");
        };
        assert_eq!(entry.vector.as_bytes().as_ptr(), bytes[HEADER_BYTES..].as_ptr());
    }
}
