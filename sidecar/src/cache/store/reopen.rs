//! Bringing a tier that went off back.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant, time::sleep_until};

use super::{
    control::{Control, RULE_LIMIT, answer},
    shared::Shared,
};

/// The first pause before the tier is tried again, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Tries a tier that went off again and again, with longer and longer pauses, until it is on. Never ends: the store stops
/// it.
pub(super) async fn reopen(shared: Arc<Shared>) {
    loop {
        shared.off.notified().await;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep_until(Instant::now() + pause).await;
            let (done, tried) = oneshot::channel();
            if shared.queue.command(Control::Retry(done))
                && answer(tried, RULE_LIMIT).await == Some(true)
            {
                tracing::info!(folder = %shared.folder.path().display(), "the disk cache is on again");
                break;
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
