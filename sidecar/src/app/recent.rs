//! Notes what was counted so far, so that it can be told what was counted of late.

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::served::ServedModels;

/// How often.
const EVERY: Duration = Duration::from_secs(15);

/// Notes until it is aborted.
pub(super) fn start(models: &ServedModels) -> JoinHandle<()> {
    let models = models.clone();
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            models.iter().for_each(|model| model.metrics.note_answered(Instant::now()));
        }
    })
}
