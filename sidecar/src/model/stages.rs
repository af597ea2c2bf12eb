//! What bringing a model up is spent on.

use std::time::Duration;

use tokio::time::Instant;

/// The time of each stage, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Files come in and are hashed.
    pub fetch: Duration,
    /// The tokenizer is read, and the file is looked through before the runtime sees it.
    pub check: Duration,
    /// The runtime reads the file.
    pub parse: Duration,
    /// A plan is made of it.
    pub optimise: Duration,
    /// The plan is tried.
    pub probe: Duration,
    /// Runs are measured.
    pub warm_up: Duration,
    /// The checks of the spec are made.
    pub self_test: Duration,
}

// === free functions ===

/// Does some work, and adds the time that it took.
pub fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    *spent += began.elapsed();
    done
}
