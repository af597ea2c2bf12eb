//! Where short work of the CPU and of the disk is done, off the threads that answer: as many at once as there are cores.
//! Waiting for a turn is cancelled with the caller; work that has begun is not.

use std::{num::NonZeroUsize, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::error::{Error, ErrorKind};

/// A bound on how much short work runs at once.
#[derive(Clone, Debug)]
pub struct CpuPool(Arc<Semaphore>);

// === impl CpuPool ===

impl CpuPool {
    /// A pool that runs `width` pieces of work at once.
    pub fn new(width: NonZeroUsize) -> Self {
        CpuPool(Arc::new(Semaphore::new(width.get())))
    }

    /// Runs `work` on a thread of the pool.
    ///
    /// # Errors
    /// [`ErrorKind::WorkerLost`]: it panicked, or the process ends.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let lost = |what: &str| Error::new(ErrorKind::WorkerLost, what);
        let Ok(permit) = Arc::clone(&self.0).acquire_owned().await else {
            return Err(lost("the process ends"));
        };
        let turn = move || {
            let done = work();
            drop(permit);
            done
        };
        spawn_blocking(turn).await.map_err(|_| lost("preparing the items panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = CpuPool::new(NonZeroUsize::MIN);
        let error = pool.run::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::WorkerLost);
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }
}
