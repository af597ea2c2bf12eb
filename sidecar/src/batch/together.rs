//! How much a row's vector depends on the rows that are computed with it. A model of floats gives the same to seven digits;
//! one that quantises as it runs takes its scale from the whole run, padding included.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    embedding::Vector,
    model::engine::{Engine, Row, RowData, Threads},
};

/// The most that a vector may differ by for rows of different lengths to share a run, as 1 − cosine.
const MOST: f64 = 1e-3;
/// The lengths that are compared: short ones, so that five runs take little.
const SHORT: u32 = 12;
const LONG: u32 = 32;

/// How much vectors differ, as the largest 1 − cosine of some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Together {
    /// Alone, against together with a longer row.
    pub padded: f64,
    /// Alone, against together with another row of the same length.
    pub equal: f64,
}

// === impl Together ===

impl Together {
    /// Whether rows of different lengths must not share a run.
    pub fn needs_equal_lengths(self) -> bool {
        self.padded > MOST
    }
}

// === free functions ===

/// Compares some rows, each alone and in runs of two; `None`: the model has one length, or a run failed, which shows itself
/// again to the first caller. Five short runs.
pub(super) fn compare(
    engine: &mut dyn Engine,
    longest: u32,
    sample: impl Fn(u32) -> Row,
) -> Option<Together> {
    let (row, long) = (sample(SHORT), sample(LONG.min(longest)));
    if row.length() >= long.length() {
        return None;
    }
    let other = turned(&row);
    let rows = [&row, &other];
    let alone = [vectors(engine, &[&row])?, vectors(engine, &[&other])?];
    let equal = vectors(engine, &rows)?;
    let (mut padded_by, mut equal_by) = (0.0_f64, 0.0_f64);
    for (at, alone) in alone.iter().enumerate() {
        let padded = vectors(engine, &[rows[at], &long])?;
        padded_by = padded_by.max(difference(alone.first()?, padded.first()?));
        equal_by = equal_by.max(difference(alone.first()?, equal.get(at)?));
    }
    Some(Together { padded: padded_by, equal: equal_by })
}

/// Another row of the same length: the tokens between the first and the last the other way round.
fn turned(row: &Row) -> Row {
    let mut ids = row.tokens().to_vec();
    let last = ids.len().saturating_sub(1);
    if let Some(between) = ids.get_mut(1..last) {
        between.reverse();
    }
    Row { data: RowData::Tokens(ids), truncated: row.truncated }
}

/// The vectors of a run; `None`: it failed, or panicked, or a row has none.
fn vectors(engine: &mut dyn Engine, rows: &[&Row]) -> Option<Vec<Vector>> {
    let run = catch_unwind(AssertUnwindSafe(|| engine.run(rows, Threads::One)));
    let outcomes = run.ok()?.ok()?;
    outcomes.into_iter().map(|outcome| outcome.ok().map(|embedding| embedding.vector)).collect()
}

/// 1 − cosine. A vector of zeros is as far from any other as one at a right angle.
fn difference(a: &Vector, b: &Vector) -> f64 {
    let no_cosine = if a == b { 0.0 } else { 1.0 };
    a.cosine(b).map_or(no_cosine, |cosine| (1.0 - cosine).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{embedding::Embedding, error::Error};

    /// Gives the sum of a row's ids and its length, and adds what padding there is, times `leak`.
    struct Leaky {
        leak: f32,
    }

    impl Engine for Leaky {
        fn run(
            &mut self,
            rows: &[&Row],
            _: Threads,
        ) -> Result<Vec<Result<Embedding, Error>>, Error> {
            let longest = rows.iter().map(|row| row.length()).max().unwrap_or(0);
            let one = |row: &&Row| {
                let padding = f64::from(longest - row.length());
                #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
                let values = [100.0, self.leak * padding as f32];
                let vector = Vector::from_values(&values);
                Ok(Embedding { vector, tokens: row.length(), truncated: false })
            };
            Ok(rows.iter().map(one).collect())
        }

        fn mixes_lengths(&self) -> bool {
            true
        }

        fn fork(&self) -> Box<dyn Engine> {
            Box::new(Leaky { leak: self.leak })
        }
    }

    fn sample(length: u32) -> Row {
        Row::of_tokens((0..length).collect())
    }

    #[test]
    fn padding_that_shows_in_a_vector_is_found() {
        let exact = compare(&mut Leaky { leak: 0.0 }, 99, sample).unwrap();
        assert_eq!(exact, Together { padded: 0.0, equal: 0.0 });
        let leaky = compare(&mut Leaky { leak: 1.0 }, 99, sample).unwrap();
        assert!(leaky.padded > 0.01 && leaky.equal < 1e-12, "{leaky:?}");
        assert!(leaky.needs_equal_lengths() && !exact.needs_equal_lengths());
    }

    #[test]
    fn rows_of_one_length_are_not_compared() {
        assert_eq!(compare(&mut Leaky { leak: 1.0 }, 99, |_| sample(1)), None);
        assert_eq!(compare(&mut Leaky { leak: 1.0 }, SHORT, sample), None);
    }

    #[test]
    fn the_other_row_has_the_same_ends() {
        assert_eq!(turned(&sample(5)).tokens(), [0, 3, 2, 1, 4]);
        assert_eq!(turned(&sample(1)).tokens(), [0]);
    }
}
