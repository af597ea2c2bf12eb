//! What a caller is told who found no place in the queue.

use std::time::Duration;

use crate::{
    batch::Full,
    error::{Error, ErrorKind},
};

/// When a caller that found no place may try again: half of what waits is done by then, and within these bounds.
const SOONEST_RETRY: Duration = Duration::from_millis(10);
const LATEST_RETRY: Duration = Duration::from_secs(10);

/// Why there is no place in the queue, as callers know it; `wait` is what a row waits there.
pub(super) fn error(full: Full, wait: Duration) -> Error {
    let kind = match full {
        Full::Items(_) | Full::Bytes(_) | Full::Cost(..) => ErrorKind::QueueFull,
        Full::Wait(..) => ErrorKind::WaitTooLong,
        Full::Closed => ErrorKind::Draining,
    };
    Error::new(kind, full.to_string()).passing_in(wait.clamp(SOONEST_RETRY, LATEST_RETRY))
}
