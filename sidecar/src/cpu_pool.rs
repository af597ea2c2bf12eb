//! Where short work of the CPU is done, off the threads that answer: on as many threads as there are cores. Work that
//! somebody waits for goes first. Too much that waits: the next is refused.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::Builder,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    error::{Error, ErrorKind},
    input::Class,
};

/// How much of a class may wait for each thread. More is refused.
const WAITING_PER_THREAD: usize = 64;

/// Threads for short work. They end with the last clone, once what waits is done.
#[derive(Clone)]
pub struct CpuPool(Arc<Threads>);

/// The right to hand over one piece of work.
pub struct Admission {
    shared: Arc<Shared>,
    class: Class,
    is_used: bool,
}

/// Tells the threads to end.
struct Threads(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    /// By class.
    waiting: [VecDeque<Work>; 2],
    /// Work that waits or is about to, by class.
    admitted: [usize; 2],
    closed: bool,
}

type Work = Box<dyn FnOnce() + Send>;

// === impl CpuPool ===

impl CpuPool {
    /// A pool of `width` threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(width: NonZeroUsize) -> io::Result<Self> {
        let most = width.get() * WAITING_PER_THREAD;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), most });
        let pool = CpuPool(Arc::new(Threads(Arc::clone(&shared))));
        for index in 0..width.get() {
            let shared = Arc::clone(&shared);
            // Nobody waits for their end: they hold nothing but the work, and what waits is done before it.
            Builder::new().name(format!("prepare-{index}")).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Takes a place in the queue of `class`.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`]: as much waits as may.
    pub fn admit(&self, class: Class) -> Result<Admission, Error> {
        let shared = Arc::clone(&self.0.0);
        let mut state = shared.state.lock();
        let admitted = &mut state.admitted[class as usize];
        if *admitted >= shared.most {
            let sentence = format!("{admitted} pieces of work wait to be prepared already");
            return Err(Error::new(ErrorKind::QueueFull, sentence));
        }
        *admitted += 1;
        drop(state);
        Ok(Admission { shared, class, is_used: false })
    }

    /// Runs `work` on a thread of the pool. When its caller leaves before its turn, it is not done.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`]: as much waits as may. [`ErrorKind::WorkerLost`]: it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, done) = oneshot::channel();
        self.admit(Class::Waiting)?.hand_over(move || {
            if !reply.is_closed() {
                // The caller may leave meanwhile.
                let _ = reply.send(work());
            }
        });
        done.await.map_err(|_| Error::new(ErrorKind::WorkerLost, "preparing the items panicked"))
    }
}

// === impl Admission ===

impl Admission {
    /// Hands the work over. A panic of it ends it and nothing else.
    pub fn hand_over(mut self, work: impl FnOnce() + Send + 'static) {
        self.is_used = true;
        self.shared.state.lock().waiting[self.class as usize].push_back(Box::new(work));
        self.shared.changed.notify_one();
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_used {
            self.shared.state.lock().admitted[self.class as usize] -= 1;
        }
    }
}

// === impl Threads ===

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

// === impl Shared ===

impl Shared {
    /// A thread's life.
    fn work(&self) {
        while let Some(work) = self.next() {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::warn!("preparing items panicked");
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            for class in Class::ALL {
                if let Some(work) = state.waiting[class as usize].pop_front() {
                    state.admitted[class as usize] -= 1;
                    return Some(work);
                }
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn one() -> CpuPool {
        CpuPool::new(NonZeroUsize::MIN).unwrap()
    }

    /// Keeps the one thread busy until what it gives is dropped.
    fn busy(pool: &CpuPool) -> std::sync::mpsc::Sender<()> {
        let (release, held) = channel::<()>();
        let (entered, in_it) = channel();
        pool.admit(Class::Waiting).unwrap().hand_over(move || {
            entered.send(()).unwrap();
            let _ = held.recv();
        });
        in_it.recv().unwrap();
        release
    }

    #[test]
    fn no_more_waits_than_may_and_what_is_not_used_makes_room() {
        let pool = one();
        let release = busy(&pool);
        let mut admitted: Vec<_> =
            (0..WAITING_PER_THREAD).map(|_| pool.admit(Class::Background).unwrap()).collect();
        let refused = pool.admit(Class::Background).map(drop).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::QueueFull);
        assert!(pool.admit(Class::Waiting).is_ok());
        admitted.pop();
        assert!(pool.admit(Class::Background).is_ok());
        drop(release);
    }

    #[test]
    fn what_is_waited_for_goes_first() {
        let pool = one();
        let release = busy(&pool);
        let (done, order) = channel();
        for class in [Class::Background, Class::Waiting, Class::Background, Class::Waiting] {
            let done = done.clone();
            pool.admit(class).unwrap().hand_over(move || done.send(class).unwrap());
        }
        drop((release, done));
        let order: Vec<Class> = order.iter().collect();
        assert_eq!(order, [Class::Waiting, Class::Waiting, Class::Background, Class::Background]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = one();
        let error = pool.run::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::WorkerLost);
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_whose_caller_left_is_not_done() {
        let pool = one();
        let release = busy(&pool);
        let (done, was_done) = channel::<()>();
        {
            let mut left = std::pin::pin!(pool.run(move || done.send(())));
            assert!(futures_util::poll!(left.as_mut()).is_pending());
        }
        drop(release);
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
        assert!(was_done.try_recv().is_err());
    }
}
