//! Where short work of the CPU and of the disk is done, off the threads that answer: as many at once as there are cores.
//! Waiting for a turn is cancelled with the caller; work that has begun is not. Too many that wait: the next is refused.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::error::{Error, ErrorKind};

/// How many may wait for each piece of work that may run.
const WAITING_PER_TURN: usize = 64;

/// A bound on how much short work runs at once, and on how much waits.
#[derive(Clone, Debug)]
pub struct CpuPool {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
}

/// One that waits; dropped when its turn comes or its caller leaves.
struct Waiting(Arc<AtomicUsize>);

// === impl CpuPool ===

impl CpuPool {
    /// A pool that runs `width` pieces of work at once.
    pub fn new(width: NonZeroUsize) -> Self {
        CpuPool {
            turns: Arc::new(Semaphore::new(width.get())),
            waiting: Arc::default(),
            most_waiting: width.get() * WAITING_PER_TURN,
        }
    }

    /// Runs `work` on a thread of the pool.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`]: as much waits as may. [`ErrorKind::WorkerLost`]: it panicked, or the process ends.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let lost = |what: &str| Error::new(ErrorKind::WorkerLost, what);
        let waiting = self.wait()?;
        let Ok(permit) = Arc::clone(&self.turns).acquire_owned().await else {
            return Err(lost("the process ends"));
        };
        drop(waiting);
        let turn = move || {
            let done = work();
            drop(permit);
            done
        };
        spawn_blocking(turn).await.map_err(|_| lost("preparing the items panicked"))
    }

    fn wait(&self) -> Result<Waiting, Error> {
        let more = |waiting: usize| (waiting < self.most_waiting).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Waiting(Arc::clone(&self.waiting))),
            Err(waiting) => {
                let sentence = format!("{waiting} calls wait to be prepared already");
                Err(Error::new(ErrorKind::QueueFull, sentence))
            }
        }
    }
}

// === impl Waiting ===

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream::FuturesUnordered};

    use super::*;

    #[tokio::test]
    async fn no_more_wait_than_may_and_a_caller_who_leaves_makes_room() {
        let pool = CpuPool::new(NonZeroUsize::MIN);
        let turn = Arc::clone(&pool.turns).acquire_owned().await.unwrap();
        let mut calls: FuturesUnordered<_> =
            (0..=WAITING_PER_TURN).map(|i| pool.run(move || i)).collect();
        let refused = calls.next().await.unwrap().unwrap_err();
        assert_eq!(refused.kind, ErrorKind::QueueFull);
        drop(calls);
        drop(turn);
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = CpuPool::new(NonZeroUsize::MIN);
        let error = pool.run::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::WorkerLost);
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }
}
