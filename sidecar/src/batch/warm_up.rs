//! What runs cost, before the first caller pays for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use embark_crds::contract::cost;
use tokio::time::Instant;

use super::{BatcherConfig, costs::Costs};
use crate::model::engine::{Engine, Row, Threads};

/// The time that measuring may take, but for the run under way. Larger runs are extrapolated.
const BUDGET: Duration = Duration::from_millis(500);
/// The lengths that are measured, and the longest.
const LENGTHS: [u32; 3] = [16, 64, 128];
/// The rows that are measured, and the most of a run.
const ROWS: [u32; 4] = [1, 4, 8, 16];

/// Measures runs, small ones first, each but one that is expected not to fit into the time that is left.
pub(super) fn measure(
    engine: &mut dyn Engine,
    config: &BatcherConfig,
    sample: impl Fn(u32) -> Row,
    costs: &mut Costs,
) {
    let started = Instant::now();
    for (rows, length) in runs(config) {
        let left = BUDGET.saturating_sub(started.elapsed());
        if costs.predict(rows, length) * 2.0 > left.as_secs_f64() {
            continue;
        }
        let row = sample(length);
        let batch = vec![&row; rows as usize];
        // A failure shows itself again to the first caller.
        let Some(first) = time(engine, &batch) else { return };
        let Some(second) = time(engine, &batch) else { return };
        // The first run of a shape pays for its memory.
        costs.observe(rows, length, first.min(second));
    }
}

/// The seconds of a run; `None`: it failed, or panicked.
fn time(engine: &mut dyn Engine, batch: &[&Row]) -> Option<f64> {
    let begun = Instant::now();
    let run = catch_unwind(AssertUnwindSafe(|| engine.run(batch, Threads::One)));
    matches!(run, Ok(Ok(_))).then(|| begun.elapsed().as_secs_f64())
}

/// The runs to be measured, by their cost.
fn runs(config: &BatcherConfig) -> Vec<(u32, u32)> {
    let batching = &config.batching;
    let lengths = LENGTHS.into_iter().chain([config.longest]).filter(|l| *l <= config.longest);
    let mut runs: Vec<(u32, u32)> = lengths
        .flat_map(|length| {
            ROWS.into_iter().chain([batching.max_items]).map(move |rows| (rows, length))
        })
        .filter(|(rows, length)| {
            let fits = cost((*rows).into(), (*length).into()) <= batching.max_tokens.into();
            *rows <= batching.max_items && (fits || *rows == 1)
        })
        .collect();
    runs.sort_by_key(|(rows, length)| cost((*rows).into(), (*length).into()));
    runs.dedup();
    runs
}
