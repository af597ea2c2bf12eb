//! Which rows are computed next. Pure: what waits, what runs cost and the time come in as values.

use std::time::Duration;

use embark_crds::contract::{Batching, cost};

use super::costs::Costs;

/// The share of the best rate that fewer rows may lose, so that they need not wait for each other.
const GOOD_ENOUGH: f64 = 0.95;

/// Rows of one bucket that wait in one class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lane {
    /// The bucket, by which the caller knows the lane.
    pub(super) bucket: u32,
    /// The lengths of the first rows that wait, the longest waiting first; as many as a run may have.
    pub(super) lengths: Vec<u32>,
    /// How long the first one waits.
    pub(super) waited: Duration,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The first rows of a lane are run.
    Run { bucket: u32, rows: usize },
    /// More rows may come: look again after this time.
    Wait(Duration),
}

/// What to run of the lanes that have rows; `None`: there is none.
///
/// The lane goes first whose rows have waited longest for what their run takes: short runs are not held up by long ones,
/// and no lane waits for ever, since its claim grows as it does.
pub(super) fn next(
    lanes: &[Lane],
    costs: &Costs,
    limits: &Batching,
    is_last: bool,
) -> Option<Next> {
    let (mut first, mut soonest) = (None::<(Next, f64)>, None::<Duration>);
    for lane in lanes.iter().filter(|lane| !lane.lengths.is_empty()) {
        let rows = rows(&lane.lengths, costs, limits);
        let may_grow = rows == lane.lengths.len() && rows < limits.max_items as usize;
        if may_grow && !is_last && lane.waited < limits.max_delay {
            let left = limits.max_delay - lane.waited;
            soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
            continue;
        }
        let longest = lane.lengths[..rows].iter().copied().max().unwrap_or(1);
        let claim = lane.waited.as_secs_f64() / predict(costs, rows, longest).max(1e-6);
        if first.is_none_or(|(_, highest)| claim >= highest) {
            first = Some((Next::Run { bucket: lane.bucket, rows }, claim));
        }
    }
    // No worker rests beside a lane that need not wait.
    first.map(|(run, _)| run).or(soonest.map(Next::Wait))
}

/// How many of the first rows of these lengths to run: the fewest that come within 5 % of the best rate, among those that
/// are within the limits. At least one: a row that is over a limit by itself is run by itself.
pub(super) fn rows(lengths: &[u32], costs: &Costs, limits: &Batching) -> usize {
    let most = lengths.len().min(limits.max_items as usize);
    let (mut rates, mut longest) = (Vec::with_capacity(most), 0);
    for (index, length) in lengths[..most].iter().enumerate() {
        longest = longest.max(*length);
        let rows = index + 1;
        let seconds = predict(costs, rows, longest);
        let fits = cost(rows as u64, longest.into()) <= limits.max_tokens.into()
            && seconds <= limits.max_duration.as_secs_f64();
        if !fits && rows > 1 {
            break;
        }
        rates.push(rows as f64 / seconds.max(1e-9));
    }
    let best = rates.iter().copied().fold(0.0, f64::max);
    rates.iter().position(|rate| *rate >= GOOD_ENOUGH * best).map_or(1, |index| index + 1)
}

/// A larger run than the `rows` that were chosen, so that what larger runs cost is found out anew: twice as many, where
/// they wait and where even two runs of the chosen size would be within the limits.
pub(super) fn larger(lengths: &[u32], rows: usize, costs: &Costs, limits: &Batching) -> usize {
    let most = lengths.len().min(limits.max_items as usize).min(2 * rows);
    let longest = lengths[..most.max(rows)].iter().copied().max().unwrap_or(1);
    let fits = cost(most as u64, longest.into()) <= limits.max_tokens.into()
        && 2.0 * predict(costs, rows, longest) <= limits.max_duration.as_secs_f64();
    if fits { most.max(rows) } else { rows }
}

fn predict(costs: &Costs, rows: usize, longest: u32) -> f64 {
    costs.predict(u32::try_from(rows).unwrap_or(u32::MAX), longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_items: u32, max_tokens: u32, max_ms: u64) -> Batching {
        Batching {
            max_items,
            max_tokens,
            max_duration: Duration::from_millis(max_ms),
            max_delay: Duration::ZERO,
            queue_max_items: 4096,
            queue_max_tokens: 262_144,
        }
    }

    /// Runs that take `fixed` and then `each` for a row of 16 tokens.
    fn costs(fixed: f64, each: f64) -> Costs {
        let mut costs = Costs::default();
        for rows in [1, 2, 4, 8, 16, 32, 64] {
            costs.observe(rows, 16, fixed + each * f64::from(rows));
        }
        costs
    }

    fn lane(bucket: u32, rows: usize, waited_ms: u64) -> Lane {
        let waited = Duration::from_millis(waited_ms);
        Lane { bucket, lengths: vec![bucket; rows], waited }
    }

    #[test]
    fn a_model_that_gains_by_merging_merges_all_and_one_that_does_not_runs_few() {
        assert_eq!(rows(&[16; 32], &costs(0.001, 0.000_001), &limits(32, 4096, 50)), 31);
        assert_eq!(rows(&[16; 32], &costs(0.000_01, 0.001), &limits(32, 4096, 50)), 1);
    }

    #[test]
    fn a_run_is_no_longer_than_may_be() {
        assert_eq!(rows(&[16; 32], &costs(0.010, 0.002), &limits(32, 4096, 21)), 5);
    }

    #[test]
    fn a_row_over_every_limit_is_run_alone() {
        assert_eq!(rows(&[500, 500], &costs(0.1, 0.1), &limits(32, 100, 1)), 1);
    }

    #[test]
    fn a_larger_run_is_tried_only_where_two_of_the_chosen_size_would_be_within_the_limits() {
        let costs = costs(0.010, 0.005);
        assert_eq!(larger(&[16; 32], 4, &costs, &limits(32, 4096, 60)), 8);
        assert_eq!(larger(&[16; 32], 4, &costs, &limits(32, 4096, 59)), 4);
        assert_eq!(larger(&[16; 32], 4, &costs, &limits(32, 100, 60)), 4);
        assert_eq!(larger(&[16; 6], 4, &costs, &limits(32, 4096, 60)), 6);
        assert_eq!(larger(&[16; 32], 1, &costs, &limits(1, 4096, 60)), 1);
    }

    #[test]
    fn short_rows_go_before_long_ones_that_came_with_them_and_long_ones_get_their_turn() {
        let (costs, limits) = (costs(0.001, 0.001), limits(32, 8192, 500));
        let next = |long_ms, short_ms| {
            next(&[lane(128, 4, long_ms), lane(8, 4, short_ms)], &costs, &limits, false)
        };
        assert!(matches!(next(10, 10), Some(Next::Run { bucket: 8, .. })));
        assert!(matches!(next(5_000, 10), Some(Next::Run { bucket: 128, .. })));
    }

    #[test]
    fn a_run_waits_for_more_rows_only_as_long_as_it_may() {
        let limits = Batching { max_delay: Duration::from_millis(5), ..limits(4, 4096, 50) };
        let costs = costs(0.001, 0.000_1);
        let next = |rows, waited, last| next(&[lane(16, rows, waited)], &costs, &limits, last);
        assert_eq!(next(3, 2, false), Some(Next::Wait(Duration::from_millis(3))));
        assert!(matches!(next(3, 2, true), Some(Next::Run { .. })));
        assert!(matches!(next(3, 5, false), Some(Next::Run { .. })));
        assert!(matches!(next(4, 0, false), Some(Next::Run { .. })));
    }

    #[test]
    fn nothing_waits_is_nothing_to_do() {
        assert_eq!(next(&[], &Costs::default(), &limits(32, 4096, 50), false), None);
        assert_eq!(next(&[lane(8, 0, 5)], &Costs::default(), &limits(32, 4096, 50), false), None);
    }

    proptest! {
        #[test]
        fn no_run_is_over_a_limit_but_one_row(
            lengths in prop::collection::vec(1_u32..512, 1..80),
            (max_items, max_tokens, max_ms) in (1_u32..64, 1_u32..8192, 1_u64..100),
            (fixed, each) in (1e-6_f64..1e-2, 1e-6_f64..1e-2),
        ) {
            let (costs, limits) = (costs(fixed, each), limits(max_items, max_tokens, max_ms));
            let rows = rows(&lengths, &costs, &limits);
            prop_assert!(rows >= 1 && rows <= lengths.len() && rows <= max_items as usize);
            let longest = lengths[..rows].iter().copied().max().unwrap();
            prop_assert!(rows == 1 || cost(rows as u64, longest.into()) <= max_tokens.into());
            prop_assert!(rows == 1 || predict(&costs, rows, longest) <= limits.max_duration.as_secs_f64());
        }

        /// However many rows keep coming in other lanes, one that waits is run before long.
        #[test]
        fn no_lane_is_starved(others in prop::collection::vec(1_u32..200, 1..6)) {
            let (costs, limits) = (costs(0.001, 0.001), limits(32, 8192, 500));
            let mut waited = Duration::ZERO;
            for _ in 0..10_000 {
                let mut lanes = vec![Lane { bucket: 999, lengths: vec![256], waited }];
                // Theirs have waited for one run of their own each time.
                lanes.extend(others.iter().map(|length| {
                    let seconds = costs.predict(32, *length);
                    Lane { bucket: *length, lengths: vec![*length; 32], waited: Duration::from_secs_f64(seconds) }
                }));
                match next(&lanes, &costs, &limits, false) {
                    Some(Next::Run { bucket: 999, .. }) => return Ok(()),
                    _ => waited += Duration::from_millis(1),
                }
            }
            prop_assert!(false, "the long row was starved");
        }
    }
}
