//! How rows are merged into runs, and what a run costs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration::milliseconds;

/// How rows are merged into runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batching {
    /// The most rows of a run.
    pub max_items: u32,
    /// The most cost of a run, see [`cost`].
    pub max_tokens: u32,
    /// The most time that a run is predicted to take.
    #[serde(with = "milliseconds")]
    pub max_duration: Duration,
    /// How long a run waits for more rows.
    #[serde(with = "milliseconds")]
    pub max_delay: Duration,
    /// The most rows that wait.
    pub queue_max_items: u32,
    /// The most cost that waits.
    pub queue_max_tokens: u32,
}

// === free functions ===

/// The cost of a run of `rows` rows that are padded to `longest` tokens: attention makes it grow faster than the tokens.
/// In tokens of a short row; an image, a tensor or a category costs 1.
pub fn cost(rows: u64, longest: u64) -> u64 {
    rows * (longest + longest * longest / 512)
}
