//! A run on all cores, for when nothing else is to be computed.

use std::sync::{Arc, LazyLock};

use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Threads that every model shares: a lone run is the only one. `None`: one core, or no threads.
static ALL: LazyLock<Option<Executor>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(cores)
        .thread_name(|index| format!("compute-all-{index}"))
        .start_handler(|_| crate::batch::give_way());
    (cores > 1).then(|| pool.build().ok().map(|pool| Executor::MultiThread(Arc::new(pool))))?
});

/// Runs `work` so that the runtime divides its larger parts between all cores. What it gives is the same.
pub(super) fn on_all<T>(work: impl FnOnce() -> T) -> T {
    match &*ALL {
        Some(executor) => multithread_tract_scope(executor.clone(), work),
        None => work(),
    }
}
