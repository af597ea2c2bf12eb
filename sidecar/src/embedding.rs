//! A vector and what is known of how it came to be.

use bytes::Bytes;

/// A vector: little-endian f32 values, as they lie in a reply and on disk. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector(Bytes);

/// What one computation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// The full vector, of the model's dimensions.
    pub vector: Vector,
    /// Tokens that the model read, special ones included; 0 for inputs that are not text.
    pub tokens: u32,
    /// Whether the text was cut to the model's length.
    pub truncated: bool,
}

// === impl Vector ===

impl Vector {
    /// A vector of these values.
    pub fn from_values(values: &[f32]) -> Self {
        Vector(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A vector whose values are already little-endian; a tail of fewer than 4 bytes is not a value and is dropped.
    pub fn from_le_bytes(bytes: Bytes) -> Self {
        let whole = bytes.len() / 4 * 4;
        Vector(bytes.slice(..whole))
    }

    /// The number of values.
    pub fn dimensions(&self) -> usize {
        self.0.len() / 4
    }

    /// The values' bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.0.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    }

    /// The cosine of the angle to another vector of as many values; `None`: one of them has no direction, or they have
    /// other numbers of values.
    pub fn cosine(&self, other: &Vector) -> Option<f64> {
        let (mut dot, mut own, mut others) = (0.0, 0.0, 0.0);
        for (a, b) in self.values().zip(other.values()) {
            let (a, b) = (f64::from(a), f64::from(b));
            dot += a * b;
            own += a * a;
            others += b * b;
        }
        let cosine = dot / (own.sqrt() * others.sqrt());
        (self.dimensions() == other.dimensions() && cosine.is_finite()).then_some(cosine)
    }

    /// The values' bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The first `dimensions` values, divided by their Euclidean length when `normalize` is set.
    pub fn cut(self, dimensions: usize, normalize: bool) -> Vector {
        if dimensions >= self.dimensions() {
            return self;
        }
        if !normalize {
            return Vector(self.0.slice(..dimensions * 4));
        }
        let mut values: Vec<f32> = self.values().take(dimensions).collect();
        normalize_l2(&mut values);
        Vector::from_values(&values)
    }
}

// === free functions ===

/// Divides by the Euclidean length; a vector without length stays as it is.
pub fn normalize_l2(values: &mut [f32]) {
    let length = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if length > 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "the quotient is an f32 again")]
        values.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_vector_has_length_one_again() {
        let cut = Vector::from_values(&[3.0, 4.0, 12.0]).cut(2, true);
        assert_eq!(cut.values().collect::<Vec<_>>(), [0.6, 0.8]);
    }

    #[test]
    fn a_cut_without_normalization_keeps_the_values() {
        let cut = Vector::from_values(&[3.0, 4.0, 12.0]).cut(2, false);
        assert_eq!(cut.values().collect::<Vec<_>>(), [3.0, 4.0]);
    }

    #[test]
    fn a_cosine_needs_two_directions() {
        let vector = |values: &[f32]| Vector::from_values(values);
        assert_eq!(vector(&[3.0, 4.0]).cosine(&vector(&[6.0, 8.0])), Some(1.0));
        assert_eq!(vector(&[1.0, 0.0]).cosine(&vector(&[0.0, 2.0])), Some(0.0));
        assert_eq!(vector(&[1.0, 0.0]).cosine(&vector(&[-1.0, 0.0])), Some(-1.0));
        for (a, b) in [
            (vector(&[0.0, 0.0]), vector(&[1.0, 0.0])),
            (vector(&[f32::NAN, 0.0]), vector(&[1.0, 0.0])),
            (vector(&[1.0]), vector(&[1.0, 0.0])),
        ] {
            assert_eq!(a.cosine(&b), None, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_zero_vector_stays_zero() {
        let mut zero = [0.0; 3];
        normalize_l2(&mut zero);
        assert_eq!(zero, [0.0; 3]);
    }
}
