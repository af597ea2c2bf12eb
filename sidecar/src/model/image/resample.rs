//! An image of one size becomes another: a triangle whose width grows with the reduction (bilinear with antialiasing), along
//! rows first, then along columns, each rounded to 8 bits.
//!
//! This is Pillow's `resize(…, BILINEAR)`, bit for bit, which models' own preprocessing calls: that of its versions up to 12,
//! by which models were trained. (From 13 on, columns go first where the height shrinks much more than the width; then some
//! values are one level off.) It is written here and not taken from a crate, because it decides vectors: nothing but a change
//! of this file may change it, and all that is summed are whole numbers, so every machine gives the same. Whoever changes a
//! value here raises the version of our preprocessing, which is a part of every space.

use embark_crds::contract::{ImageInput, Resize};

use super::picture::{Picture, RGB};

/// Bits of a weight behind the point.
const BITS: u32 = 22;
/// A half, by which sums are rounded.
const HALF: i32 = 1 << (BITS - 1);
/// Rows that are read of an image in one go.
const BAND: usize = 64;

/// What of an image is made: each axis is scaled, and of what that gives some pixels are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    across: Axis,
    down: Axis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    /// Pixels that there are.
    from: usize,
    /// Pixels that they are scaled to.
    to: usize,
    /// The first that is wanted.
    first: usize,
    /// How many are.
    count: usize,
}

/// What one pixel is made of.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

// === impl Plan ===

impl Plan {
    /// How an image of `across` × `down` pixels becomes the model's.
    pub(super) fn of(input: &ImageInput, across: usize, down: usize) -> Self {
        let (width, height) = (input.width as usize, input.height as usize);
        let (mut wide, mut high) = (width, height);
        if input.resize == Resize::FitCrop {
            // One axis fits; the other is rounded down, and is no shorter than what is cut out of it.
            if width * down >= height * across {
                high = width * down / across;
            } else {
                wide = height * across / down;
            }
        }
        Plan { across: Axis::of(across, wide, width), down: Axis::of(down, high, height) }
    }

    /// The rows of the new image, each of red, green and blue.
    pub(super) fn run(&self, picture: &Picture) -> Vec<u8> {
        let (across, down) = (self.across.taps(), self.down.taps());
        let length = self.across.count * RGB;
        let mut sums = vec![HALF; self.down.count * length];
        let mut band = vec![0; BAND * picture.across() * RGB];
        let mut line = vec![0; length];
        let end = down.last().map_or(0, Taps::end);
        let (mut y, mut open) = (down.first().map_or(0, |taps| taps.first), 0);
        while y < end {
            let rows = BAND.min(end - y);
            let band = &mut band[..rows * picture.across() * RGB];
            picture.read(y, band);
            for row in band.chunks_exact(picture.across() * RGB) {
                narrow(row, &across, &mut line);
                // What is made of rows further up takes no more.
                while down.get(open).is_some_and(|taps| taps.end() <= y) {
                    open += 1;
                }
                let reached = down[open..].iter().take_while(|taps| taps.first <= y);
                for (taps, sums) in reached.zip(sums[open * length..].chunks_exact_mut(length)) {
                    add(&line, taps, (y, sums));
                }
                y += 1;
            }
        }
        sums.into_iter().map(rounded).collect()
    }
}

// === impl Axis ===

impl Axis {
    /// The middle of what scaling gives.
    fn of(from: usize, to: usize, count: usize) -> Self {
        Axis { from, to, first: (to - count) / 2, count }
    }

    fn taps(&self) -> Vec<Taps> {
        (self.first..self.first + self.count).map(|place| self.taps_of(place)).collect()
    }

    /// What the pixel at `place` of the scaled axis is made of.
    fn taps_of(&self, place: usize) -> Taps {
        let scale = real(self.from) / real(self.to);
        let reach = scale.max(1.0);
        let centre = (real(place) + 0.5) * scale;
        let first = whole(centre - reach + 0.5).min(self.from - 1);
        let end = whole(centre + reach + 0.5).clamp(first + 1, self.from);
        let triangle = |at: usize| {
            let distance = ((real(at) - centre + 0.5) * (1.0 / reach)).abs();
            (1.0 - distance).max(0.0)
        };
        let weights: Vec<f64> = (first..end).map(triangle).collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.into_iter().map(|weight| fixed(weight / sum)).collect();
        Taps { first, weights }
    }
}

// === impl Taps ===

impl Taps {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

// === free functions ===

/// A row of the new width.
fn narrow(row: &[u8], taps: &[Taps], line: &mut [u8]) {
    for (taps, pixel) in taps.iter().zip(line.chunks_exact_mut(RGB)) {
        let mut sums = [HALF; RGB];
        for (weight, from) in taps.weights.iter().zip(row[taps.first * RGB..].chunks_exact(RGB)) {
            for (sum, value) in sums.iter_mut().zip(from) {
                *sum += weight * i32::from(*value);
            }
        }
        pixel.copy_from_slice(&sums.map(rounded));
    }
}

/// Adds a row's part to the sums of another.
fn add(line: &[u8], taps: &Taps, (y, sums): (usize, &mut [i32])) {
    let weight = taps.weights[y - taps.first];
    for (sum, value) in sums.iter_mut().zip(line) {
        *sum += weight * i32::from(*value);
    }
}

fn rounded(sum: i32) -> u8 {
    u8::try_from((sum >> BITS).clamp(0, 255)).unwrap_or(u8::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn real(size: usize) -> f64 {
    size as f64
}

/// Towards zero, and never below it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, which is what is wanted"
)]
fn whole(value: f64) -> usize {
    value as usize
}

/// A weight of 0 to 1 as a whole number.
#[expect(clippy::cast_possible_truncation, reason = "at most 2^22")]
fn fixed(weight: f64) -> i32 {
    (0.5 + weight * f64::from(1 << BITS)) as i32
}

#[cfg(test)]
mod tests;
