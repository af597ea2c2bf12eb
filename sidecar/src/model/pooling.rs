//! How the vectors of a row's tokens become one. Pure: it knows numbers, no runtime.

use embark_crds::contract::{Normalization, Pooling};

use crate::{
    embedding::{Embedding, Vector, normalize_l2},
    error::{Error, ErrorKind},
};

/// One row of a model's output, as the runtime gave it.
#[derive(Clone, Copy, Debug)]
pub struct RowOutput<'a> {
    /// The vectors of every position one after the other, padding included; one vector when the model pools.
    pub values: &'a [f32],
    /// Values of one vector; at least 1.
    pub dimensions: usize,
    /// Positions that are tokens of the row; the padding comes after them.
    pub tokens: usize,
}

/// The row's vector: pooled over its own tokens, then normalised.
///
/// # Errors
/// [`ErrorKind::NotFinite`] when a value is NaN or infinite, before or after.
pub fn finish(
    row: RowOutput<'_>,
    pooling: Pooling,
    normalization: Normalization,
) -> Result<Vector, Error> {
    let mut vector = pool(row, pooling);
    finite(&vector)?;
    if normalization == Normalization::L2 {
        normalize_l2(&mut vector);
    }
    // A length that f64 holds can still leave the range of f32 when the vector is divided by it.
    finite(&vector)?;
    Ok(Vector::from_values(&vector))
}

/// The vector of a text that was read in windows: the mean of theirs, each weighed by its tokens, then normalised. It is cut
/// where one of them is, and has read the tokens of all.
///
/// # Errors
/// [`ErrorKind::NotFinite`] when the mean is not in the range of f32.
pub fn mean_of_windows(
    windows: &[Embedding],
    normalization: Normalization,
) -> Result<Embedding, Error> {
    let dimensions = windows.first().map_or(0, |window| window.vector.dimensions());
    let weight = |window: &Embedding| f64::from(window.tokens.max(1));
    let total: f64 = windows.iter().map(weight).sum();
    let mut sums = vec![0.0_f64; dimensions];
    for window in windows {
        let share = weight(window) / total.max(1.0);
        for (sum, value) in sums.iter_mut().zip(window.vector.values()) {
            *sum += share * f64::from(value);
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values is in their range")]
    let mut vector: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
    if normalization == Normalization::L2 {
        normalize_l2(&mut vector);
    }
    finite(&vector)?;
    let tokens = windows.iter().fold(0_u32, |sum, window| sum.saturating_add(window.tokens));
    let truncated = windows.iter().any(|window| window.truncated);
    Ok(Embedding { vector: Vector::from_values(&vector), tokens, truncated })
}

// === free functions ===

fn pool(row: RowOutput<'_>, pooling: Pooling) -> Vec<f32> {
    let mut vectors = row.values.chunks_exact(row.dimensions).take(row.tokens.max(1));
    match pooling {
        Pooling::None | Pooling::Cls => vectors.next().unwrap_or_default().to_vec(),
        Pooling::LastToken => vectors.next_back().unwrap_or_default().to_vec(),
        Pooling::Mean => mean(vectors, row.dimensions),
    }
}

fn mean<'a>(vectors: impl ExactSizeIterator<Item = &'a [f32]>, dimensions: usize) -> Vec<f32> {
    let count = vectors.len().max(1) as f64;
    let mut sums = vec![0.0_f64; dimensions];
    for vector in vectors {
        for (sum, value) in sums.iter_mut().zip(vector) {
            *sum += f64::from(*value);
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values is in their range")]
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

fn finite(vector: &[f32]) -> Result<(), Error> {
    match vector.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::NotFinite,
            format!("the model gave {} at position {at} of the vector", vector[at]),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 100.0, 100.0];

    fn finished(pooling: Pooling, normalization: Normalization) -> Vec<f32> {
        let row = RowOutput { values: &TOKENS, dimensions: 2, tokens: 3 };
        finish(row, pooling, normalization).unwrap().values().collect()
    }

    #[test]
    fn the_mean_leaves_padding_out() {
        assert_eq!(finished(Pooling::Mean, Normalization::None), [3.0, 5.0]);
    }

    #[test]
    fn cls_is_the_first_token() {
        assert_eq!(finished(Pooling::Cls, Normalization::None), [1.0, 2.0]);
    }

    #[test]
    fn the_last_token_is_the_last_that_is_not_padding() {
        assert_eq!(finished(Pooling::LastToken, Normalization::None), [5.0, 9.0]);
    }

    #[test]
    fn a_vector_that_the_model_pooled_stays() {
        let row = RowOutput { values: &[3.0, 4.0], dimensions: 2, tokens: 9 };
        let vector = finish(row, Pooling::None, Normalization::L2).unwrap();
        assert_eq!(vector.values().collect::<Vec<_>>(), [0.6, 0.8]);
    }

    #[test]
    fn windows_are_weighed_by_their_tokens_before_the_mean_is_normalised() {
        let window = |values: &[f32], tokens, truncated| Embedding {
            vector: Vector::from_values(values),
            tokens,
            truncated,
        };
        let windows = [window(&[1.0, 0.0], 3, false), window(&[0.0, 1.0], 1, true)];
        let plain = mean_of_windows(&windows, Normalization::None).unwrap();
        assert_eq!(plain, window(&[0.75, 0.25], 4, true));
        let of_length_1 = mean_of_windows(&windows, Normalization::L2).unwrap();
        let length = 0.75_f32.hypot(0.25);
        for (value, expected) in of_length_1.vector.values().zip([0.75 / length, 0.25 / length]) {
            assert!((value - expected).abs() < 1e-6);
        }
        let opposite = [window(&[1.0, 0.0], 2, false), window(&[-1.0, 0.0], 2, false)];
        let none = mean_of_windows(&opposite, Normalization::L2).unwrap();
        assert_eq!(none, window(&[0.0, 0.0], 4, false));
    }

    #[test]
    fn a_value_that_is_not_finite_fails() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let row = RowOutput { values: &[1.0, bad], dimensions: 2, tokens: 1 };
            let error = finish(row, Pooling::None, Normalization::L2).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFinite);
            assert!(error.message.contains("position 1"), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_in_the_padding_does_not_matter() {
        let row = RowOutput { values: &[1.0, f32::NAN], dimensions: 1, tokens: 1 };
        assert!(finish(row, Pooling::Mean, Normalization::None).is_ok());
    }
}
