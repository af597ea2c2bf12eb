//! What runs cost: seconds by rows and their length, measured before the model is ready and refined by every run after.
//! Pure: it is told what was measured.

use std::{collections::BTreeMap, time::Duration};

use embark_crds::contract::cost;

/// How much of a cell a new measurement replaces.
const FRESH: f64 = 0.2;
/// How the time grows with rows beyond those that were measured: a little less than they do, so that larger runs are tried
/// and then known.
const GROWTH: f64 = 0.9;

/// Seconds of runs, by length and then by rows, each a power of two or the bound of a bucket.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// By the length of a bucket: by rows: seconds.
    cells: BTreeMap<u32, BTreeMap<u32, f64>>,
}

/// What runs of one shape take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Rows of the run.
    pub rows: u32,
    /// The length that they are padded to.
    pub length: u32,
    /// How long the run takes on one thread.
    pub took: Duration,
}

// === impl Costs ===

impl Costs {
    /// The seconds that a run of so many rows is expected to take.
    pub fn predict(&self, rows: u32, length: u32) -> f64 {
        let length = bucket(length);
        if let Some(column) = self.cells.get(&length) {
            return interpolate(column, rows);
        }
        let below = self.cells.range(..length).next_back();
        let above = self.cells.range(length..).next();
        // The closer by their ratio; runs of other lengths cost as the formula says.
        let closest = match (below, above) {
            (Some(below), Some(above)) => {
                let (down, up) = (
                    f64::from(length) / f64::from(*below.0),
                    f64::from(*above.0) / f64::from(length),
                );
                if down <= up { Some(below) } else { Some(above) }
            }
            (one, other) => one.or(other),
        };
        closest.map_or(0.0, |(known, column)| interpolate(column, rows) * ratio(length, *known))
    }

    /// Takes in that a run took so many seconds.
    pub fn observe(&mut self, rows: u32, length: u32, seconds: f64) {
        if rows == 0 || !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        let length = bucket(length);
        let cell = 1 << rows.ilog2();
        // As if the run had been of the cell's rows.
        let seconds = match self.cells.get(&length) {
            Some(column) => seconds * interpolate(column, cell) / interpolate(column, rows),
            None => seconds * f64::from(cell) / f64::from(rows),
        };
        let known = self.cells.entry(length).or_default().entry(cell).or_insert(seconds);
        *known += FRESH * (seconds - *known);
    }

    /// Every cell.
    pub fn measured(&self) -> Vec<Measured> {
        let cells = self.cells.iter().flat_map(|(length, column)| {
            column.iter().map(|(rows, seconds)| {
                let took = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
                Measured { rows: *rows, length: *length, took }
            })
        });
        cells.collect()
    }
}

// === free functions ===

/// The bound of the bucket that a length is in: lengths of a bucket differ by less than a third, so that little of a run
/// is padding.
pub fn bucket(length: u32) -> u32 {
    const SMALLEST: u32 = 8;
    if length <= SMALLEST {
        return length.clamp(1, SMALLEST).next_multiple_of(4);
    }
    // Four buckets between two powers of two.
    let step = (1 << (length - 1).ilog2()) / 4;
    length.next_multiple_of(step)
}

fn ratio(length: u32, known: u32) -> f64 {
    let of = |length: u32| cost(1, length.into()).max(1) as f64;
    of(length) / of(known)
}

/// Between the cells around `rows`; beyond them a little less than in proportion.
fn interpolate(column: &BTreeMap<u32, f64>, rows: u32) -> f64 {
    let below = column.range(..=rows).next_back();
    let above = column.range(rows..).next();
    let at = f64::from(rows);
    match (below, above) {
        (Some((low, from)), Some((high, to))) if low < high => {
            let share = (at - f64::from(*low)) / f64::from(high - low);
            from + (to - from) * share
        }
        (Some((_, exact)), Some(_)) => *exact,
        (Some((low, from)), None) => from * (at / f64::from(*low)).powf(GROWTH),
        // Fewer rows than were measured: at most the same.
        (None, Some((_, to))) => *to,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_a_bucket_differ_by_less_than_a_third() {
        for length in 9..5_000 {
            let bound = bucket(length);
            assert!(bound >= length && bucket(bound) == bound, "{length}: {bound}");
            assert!(f64::from(bound) < 1.34 * f64::from(length), "{length}: {bound}");
        }
        assert_eq!(
            [1, 4, 5, 8, 9, 16, 17, 100, 128].map(bucket),
            [4, 4, 8, 8, 10, 16, 20, 112, 128]
        );
    }

    #[test]
    fn what_was_measured_is_predicted_and_what_lies_between_is_in_proportion() {
        let mut costs = Costs::default();
        costs.observe(1, 16, 0.010);
        costs.observe(8, 16, 0.045);
        assert!((costs.predict(1, 16) - 0.010).abs() < 1e-9);
        assert!((costs.predict(8, 16) - 0.045).abs() < 1e-9);
        let beyond = costs.predict(16, 16);
        assert!(beyond > 0.080 && beyond < 0.090, "{beyond}");
        let between = costs.predict(4, 16);
        assert!(between > 0.020 && between < 0.030, "{between}");
        // Twice as long, a little more than twice as dear.
        let longer = costs.predict(1, 32) / costs.predict(1, 16);
        assert!(longer > 2.0 && longer < 2.2, "{longer}");
    }

    #[test]
    fn runs_of_other_sizes_refine_the_cells() {
        let mut costs = Costs::default();
        costs.observe(1, 16, 0.010);
        costs.observe(8, 16, 0.080);
        for _ in 0..50 {
            costs.observe(7, 15, 0.140);
        }
        let refined = costs.predict(7, 16);
        assert!((refined - 0.140).abs() < 0.01, "{refined}");
    }

    #[test]
    fn nonsense_is_not_taken_in() {
        let mut costs = Costs::default();
        for seconds in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            costs.observe(1, 16, seconds);
        }
        costs.observe(0, 16, 1.0);
        assert!(costs.measured().is_empty());
        assert_eq!(costs.predict(5, 5), 0.0);
    }
}
