//! Small changes of bytes, as fuzzers make them.

use fastrand::Rng;

/// Values that often are the edge of something.
const EDGES: [u8; 10] = [0x00, 0x01, 0x7f, 0x80, 0xff, b'0', b'9', b'{', b'"', b'\n'];
/// The most changes of one input, and bytes of one of them.
const MOST: usize = 4;
const LONGEST: usize = 64;

/// The bytes with one change or a few, with parts of `other`.
pub(crate) fn changed(bytes: &[u8], other: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..=MOST) {
        change(&mut bytes, other, random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let at = random.usize(..=bytes.len());
    let is_within = at < bytes.len();
    match random.u8(..8) {
        0 if is_within => bytes[at] ^= 1 << random.u8(..8),
        1 if is_within => bytes[at] = EDGES[random.usize(..EDGES.len())],
        2 if is_within => bytes[at] = random.u8(..),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(part(at, bytes.len(), random))),
        5 => {
            let own = bytes[part(at, bytes.len(), random)].to_vec();
            insert(bytes, at, &own);
        }
        6 => {
            let from = random.usize(..=other.len());
            insert(bytes, at, &other[part(from, other.len(), random)]);
        }
        _ => {
            let added: Vec<u8> = (0..random.usize(1..=8)).map(|_| random.u8(..)).collect();
            insert(bytes, at, &added);
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, added: &[u8]) {
    bytes.splice(at..at, added.iter().copied());
}

/// A few bytes from a place on.
fn part(at: usize, length: usize, random: &mut Rng) -> std::ops::Range<usize> {
    at..(at + random.usize(1..=LONGEST)).min(length)
}
