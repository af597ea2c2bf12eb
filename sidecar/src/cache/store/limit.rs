//! Time limits for what cannot be interrupted: it runs on a thread of its own, which is left to end when it is late.

use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use super::StoreError;

/// What `run` gives, if it does so within `limit`. What a late `run` gives is dropped on its thread.
///
/// # Errors
/// [`StoreError::TimedOut`] past the limit, [`StoreError::Damaged`] when `run` panics.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    action: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    let (sender, receiver) = sync_channel(1);
    let thread = thread::Builder::new().name("embark-store-io".to_owned());
    let spawned = thread.spawn(move || {
        // The receiver is gone when the limit has passed.
        let _ = sender.send(run());
    });
    spawned.map_err(StoreError::io(format!("start a thread for {action}")))?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => StoreError::TimedOut(action, limit.as_secs()),
        RecvTimeoutError::Disconnected => StoreError::Damaged(format!("{action}: panic")),
    })
}
