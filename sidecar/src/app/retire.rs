//! Takes models down: at the end of the process, and a version that another has taken the place of. Of that one nobody is cut
//! off: calls that began with it end with it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::warn;

use crate::served::{Runtime, ServedModel};

/// The longest that its calls are waited for: far longer than the 30 s of calls that say no deadline.
const CALLS_GRACE: Duration = Duration::from_secs(600);
/// How long what is left may take to be computed, and the cache to be closed.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The versions that are being taken down.
#[derive(Clone, Default)]
pub(super) struct Retiring(Arc<Mutex<JoinSet<()>>>);

// === impl Retiring ===

impl Retiring {
    /// Takes one more down, in a task of its own.
    pub(super) fn spawn(&self, retire: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(retire);
    }

    /// Waits until there is none.
    pub(super) async fn none(&self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut tasks = self.0.lock();
            while tasks.try_join_next().is_some() {}
            if tasks.is_empty() {
                return;
            }
        }
    }

    /// Waits until all are gone, for no longer than `grace`.
    pub(super) async fn end(&self, grace: Duration) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        let gone = async { while tasks.join_next().await.is_some() {} };
        if timeout(grace, gone).await.is_err() {
            warn!("versions that others took the place of were not gone within {grace:?}");
        }
    }
}

// === free functions ===

/// Waits for the last call of a version, and takes down what `after` does not go on with. False: it never answered.
pub(super) async fn take_down(before: Arc<ServedModel>, after: Arc<ServedModel>) -> bool {
    let Ok(runtime) = before.runtime().map(Arc::clone) else { return false };
    if !is_alone(&before, &runtime).await {
        let seconds = CALLS_GRACE.as_secs();
        warn!(model = before.name(), "calls of the version before have not ended in {seconds} s");
    }
    compute_the_rest(before.name(), &runtime, CLOSE_GRACE).await;
    let shares_cache = after.runtime().is_ok_and(|after| Arc::ptr_eq(&after.cache, &runtime.cache));
    if !shares_cache && !runtime.cache.close(CLOSE_GRACE).await {
        warn!(
            model = before.name(),
            "the cache of the version before was not closed within {CLOSE_GRACE:?}"
        );
    }
    // Its memory is free from here on.
    drop((runtime, before));
    if shares_cache {
        after.own_cache();
    }
    true
}

/// Computes what waits and writes the cache, each within `grace`.
pub(super) async fn close(model: &Arc<ServedModel>, grace: Duration) {
    let Ok(runtime) = model.runtime().map(Arc::clone) else {
        return;
    };
    compute_the_rest(model.name(), &runtime, grace).await;
    if !runtime.cache.close(grace).await {
        warn!(model = model.name(), "the cache was not written within {grace:?}");
    }
}

/// Computes what waits, within `grace`, and takes no more.
async fn compute_the_rest(name: &str, runtime: &Arc<Runtime>, grace: Duration) {
    let computing = Arc::clone(runtime);
    let computed = spawn_blocking(move || computing.batcher.close());
    if timeout(grace, computed).await.is_err() {
        warn!(model = name, "what waits was not computed within {grace:?}");
    }
}

/// Waits until nobody else holds the version or computes with it, for no longer than may be.
async fn is_alone(model: &Arc<ServedModel>, runtime: &Arc<Runtime>) -> bool {
    let began = Instant::now();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The model's own hold of its runtime, and the two of who waits here.
    while Arc::strong_count(model) > 1 || Arc::strong_count(runtime) > 2 {
        if began.elapsed() > CALLS_GRACE {
            return false;
        }
        looks.tick().await;
    }
    true
}
