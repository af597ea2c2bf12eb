//! What the writer of a store is told, and how its answer is waited for.

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout};

use super::error::{RuleError, StoreError};
use crate::key::CacheKey;

/// How long a caller waits for a rule to be on disk: longer than the writer may take for what comes before it.
pub(super) const RULE_LIMIT: Duration = Duration::from_secs(30);

/// What the writer does beside writing entries.
pub(super) enum Control {
    /// Entries of these keys created at or before the time do not count.
    Forget { keys: Vec<CacheKey>, before_ms: u64, done: oneshot::Sender<Result<(), RuleError>> },
    /// Entries created at or before the time do not count.
    ForgetAll { before_ms: u64, done: oneshot::Sender<Result<(), RuleError>> },
    /// Entries of lower epochs do not count, nor does a policy that asks for one.
    RaiseEpoch { epoch: u64, done: oneshot::Sender<Result<(), RuleError>> },
    /// The record of the key is bad.
    Remove(CacheKey),
    /// A reader of the databases of this opening met an error.
    Failed { opening: u64, error: StoreError },
    /// Hand everything written to the operating system.
    Flush(oneshot::Sender<()>),
    /// Try to open again; says whether the tier is on.
    Retry(oneshot::Sender<bool>),
    /// End in order.
    Close(oneshot::Sender<()>),
}

// === free functions ===

/// What the writer answers, if it does so within `limit`.
pub(super) async fn answer<T>(answer: oneshot::Receiver<T>, limit: Duration) -> Option<T> {
    timeout(limit, answer).await.ok()?.ok()
}
