//! What runs cost: seconds by rows and their length, measured before the model is ready and refined by every run after.
//! Pure: it is told what was measured.

use std::{collections::BTreeMap, time::Duration};

use embark_crds::contract::cost;

/// How much of a cell a measurement replaces that is faster, and one that is slower: what disturbs a run only ever makes
/// it longer.
const FASTER: f64 = 0.5;
const SLOWER: f64 = 0.1;
/// A run that takes more than so many times what it should was held up, and tells little of the next.
const SLOWEST: f64 = 2.0;
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
        let column = self.cells.entry(bucket(length)).or_default();
        let cell = 1 << rows.ilog2();
        if column.is_empty() {
            // As if the run had been of the cell's rows.
            column.insert(cell, seconds * f64::from(cell) / f64::from(rows));
            return;
        }
        let surprise = seconds / interpolate(column, rows);
        if !column.contains_key(&cell) {
            column.insert(cell, interpolate(column, cell) * surprise);
            return;
        }
        // A run between two cells tells of both, the more the closer they are; one beyond all of the last alone.
        let above = column.range(rows..).next().map_or(cell, |(rows, _)| *rows);
        let share = match above - cell {
            0 => 0.0,
            apart => f64::from(rows - cell) / f64::from(apart),
        };
        let fresh = if surprise < 1.0 { FASTER } else { SLOWER };
        let change = fresh * (surprise.min(SLOWEST) - 1.0);
        for (rows, share) in [(cell, 1.0 - share), (above, share)] {
            if let Some(known) = column.get_mut(&rows) {
                *known *= 1.0 + change * share;
            }
        }
    }

    /// How long the slowest known run takes.
    pub fn slowest(&self) -> Duration {
        self.measured().iter().map(|run| run.took).max().unwrap_or_default()
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

    proptest::proptest! {
        /// Whatever is measured, no run takes less than no time, and none for ever.
        #[test]
        fn what_is_predicted_is_a_time(
            runs in proptest::collection::vec((1_u32..200, 1_u32..600, 1e-7_f64..100.0), 0..60),
        ) {
            let mut costs = Costs::default();
            for (rows, length, seconds) in &runs {
                costs.observe(*rows, *length, *seconds);
            }
            for rows in [1, 3, 8, 12, 15, 100, 1024] {
                for length in [1, 16, 100, 512, 4096] {
                    let predicted = costs.predict(rows, length);
                    let is_time = predicted.is_finite() && (predicted > 0.0 || runs.is_empty());
                    proptest::prop_assert!(is_time, "{rows} x {length}: {predicted}");
                }
            }
        }
    }

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
    fn runs_that_were_held_up_change_little_and_the_next_undisturbed_ones_mend_it() {
        let mut costs = Costs::default();
        for _ in 0..10 {
            costs.observe(4, 16, 0.033);
        }
        costs.observe(4, 16, 0.500);
        assert!(costs.predict(4, 16) < 0.040, "{}", costs.predict(4, 16));
        for _ in 0..4 {
            costs.observe(4, 16, 0.033);
        }
        assert!((costs.predict(4, 16) - 0.033).abs() < 0.001, "{}", costs.predict(4, 16));
    }

    #[test]
    fn a_run_between_two_cells_tells_of_both() {
        let mut costs = Costs::default();
        costs.observe(2, 16, 0.020);
        costs.observe(4, 16, 0.053);
        for _ in 0..20 {
            costs.observe(2, 16, 0.020);
            costs.observe(3, 16, 0.026);
        }
        let above = costs.predict(4, 16);
        assert!(above > 0.030 && above < 0.035, "{above}");
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
