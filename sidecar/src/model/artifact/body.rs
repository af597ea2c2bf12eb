//! What every source gives, whatever its protocol: a body that has begun to come, or why it does not; and within which bounds.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;

/// The bounds of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// The most time to connect.
    pub connect_timeout: Duration,
    /// The most time that 16 KiB, or the end, may take to come.
    pub idle_timeout: Duration,
    /// How often a transient failure is tried in all, counted anew whenever the file gets on; at least 1.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each, up to [`FetchSettings::longest_backoff`].
    pub backoff: Duration,
    /// The most time between two tries.
    pub longest_backoff: Duration,
    /// Whether the environment's proxy settings are honoured.
    pub proxy: bool,
}

/// A body that has begun to come.
pub(super) struct Opened {
    /// The byte of the file that it begins at: the one that was asked for, or 0.
    pub(super) from: u64,
    /// Bytes of the whole file, where the source says so.
    pub(super) total: Option<u64>,
    /// What tells this file from another at the same place.
    pub(super) validator: Option<String>,
    /// The bytes.
    pub(super) body: BoxStream<'static, Result<Bytes, Failure>>,
}

/// Why one try failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened; no secret is in it.
    pub(super) problem: String,
    /// Whether another try may go well.
    pub(super) transient: bool,
    /// Whether what came so far is of no use.
    pub(super) start_over: bool,
}

// === impl FetchSettings ===

impl Default for FetchSettings {
    fn default() -> Self {
        FetchSettings {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            tries: 5,
            backoff: Duration::from_millis(500),
            longest_backoff: Duration::from_secs(8),
            proxy: true,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// A failure that another try may mend.
    pub(super) fn transient(problem: impl Into<String>) -> Self {
        Failure { problem: problem.into(), transient: true, start_over: false }
    }

    /// A failure that stays.
    pub(super) fn lasting(problem: impl Into<String>) -> Self {
        Failure { problem: problem.into(), transient: false, start_over: false }
    }

    /// No byte came for as long as one may take.
    pub(super) fn idle() -> Self {
        Failure::transient("did not answer in time")
    }
}
