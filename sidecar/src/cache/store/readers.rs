//! The threads that read the databases: a few, for a read cannot be interrupted. Who waits for one waits a bounded time;
//! a reader that hangs keeps its thread and nobody else, and while all of them hang nobody waits at all.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::{sync::oneshot, time::timeout};

/// Reads at once, at most. Each takes microseconds, unless the disk hangs.
const MOST_READERS: usize = 4;
/// The time that a read may take, with the wait for a reader. Far above what a disk that works takes, even where the cores
/// are busy: computing anew costs them more than waiting.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(2);

/// A read that nobody waits for any more when this is dropped.
struct GivenUp<'a> {
    readers: &'a Readers,
    number: u64,
}

/// The readers of one store. Dropping them tells them to end, without a wait.
pub(super) struct Readers {
    shared: Arc<Shared>,
    limit: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Reads that no reader has begun; their callers wait, so there are no more than callers at once.
    waiting: VecDeque<(u64, Read)>,
    /// Reads under way.
    running: Vec<u64>,
    /// Those of them that nobody waits for any more.
    late: Vec<u64>,
    last_number: u64,
    /// Threads that wait for work.
    idle: usize,
    /// Threads that have not ended.
    alive: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

type Read = Box<dyn FnOnce() + Send>;

// === impl Readers ===

impl Readers {
    /// Readers that may take `limit` for each read; threads start when they are needed.
    pub(super) fn new(limit: Duration) -> Self {
        Readers { shared: Arc::default(), limit }
    }

    /// What `read` gives on a reader's thread; `None` when it does not within the limit, or when no reader is left.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.run_within(self.limit, read).await
    }

    async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, mut answer) = oneshot::channel();
        let read = move || {
            // The receiver is gone when the limit has passed, or with its caller.
            let _ = sender.send(read());
        };
        let wait = GivenUp { readers: self, number: self.enqueue(Box::new(read))? };
        match timeout(limit, &mut answer).await {
            Ok(read) => {
                // It is over, whatever came of it.
                std::mem::forget(wait);
                read.ok()
            }
            Err(_) => {
                drop(wait);
                // It may have come in between.
                answer.try_recv().ok()
            }
        }
    }

    /// Ends the threads. Blocks until they have, but no longer than one read may take: one that hangs is left behind.
    pub(super) fn close(&self) {
        let mut state = self.shared.state.lock();
        self.shared.tell_to_end(&mut state);
        self.shared.ended.wait_while_for(&mut state, |state| state.alive > 0, self.limit);
        let (threads, all) = (std::mem::take(&mut state.threads), state.alive == 0);
        drop(state);
        for ended in threads.into_iter().filter(|thread| all || thread.is_finished()) {
            // Its panics are caught.
            let _ = ended.join();
        }
    }

    fn enqueue(&self, read: Read) -> Option<u64> {
        let mut state = self.shared.state.lock();
        if state.closed || state.late.len() >= MOST_READERS {
            return None;
        }
        state.last_number += 1;
        let number = state.last_number;
        state.waiting.push_back((number, read));
        if state.idle < state.waiting.len() && state.alive < MOST_READERS {
            self.start_one(&mut state);
        }
        drop(state);
        self.shared.more.notify_one();
        Some(number)
    }

    fn start_one(&self, state: &mut State) {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("embark-store-read".to_owned());
        match thread.spawn(move || shared.serve()) {
            Ok(thread) => {
                state.alive += 1;
                state.threads.push(thread);
            }
            // The reads are misses until one can be started.
            Err(error) => tracing::warn!(%error, "no thread to read the disk cache"),
        }
    }

    /// Nobody waits for the read any more.
    fn give_up(&self, number: u64) {
        let mut state = self.shared.state.lock();
        state.waiting.retain(|(waiting, _)| *waiting != number);
        if state.running.contains(&number) {
            state.late.push(number);
        }
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.readers.give_up(self.number);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.tell_to_end(&mut self.shared.state.lock());
    }
}

// === impl Shared ===

impl Shared {
    /// A reader's life.
    fn serve(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let Some((number, read)) = state.waiting.pop_front() else {
                state.idle += 1;
                self.more.wait(&mut state);
                state.idle -= 1;
                continue;
            };
            state.running.push(number);
            let caught = MutexGuard::unlocked(&mut state, || catch_unwind(AssertUnwindSafe(read)));
            if caught.is_err() {
                tracing::warn!("a read of the disk cache panicked");
            }
            state.running.retain(|running| *running != number);
            state.late.retain(|late| *late != number);
        }
        state.alive -= 1;
        self.ended.notify_all();
    }

    fn tell_to_end(&self, state: &mut State) {
        state.closed = true;
        // Who waits for these is answered with a miss.
        state.waiting.clear();
        self.more.notify_all();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::cache::block_on::block_on;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(10);

    fn run<T: Send + 'static>(
        readers: &Readers,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        block_on(readers.run(read))
    }

    fn run_within<T: Send + 'static>(
        readers: &Readers,
        limit: Duration,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        block_on(readers.run_within(limit, read))
    }

    /// Makes every reader hang until what it gives is dropped.
    pub(in super::super) fn all_hang(readers: &Readers) -> Vec<Sender<()>> {
        let mut hanging = vec![];
        // On a busy machine a read may be given up before it began.
        while readers.shared.state.lock().late.len() < MOST_READERS {
            let (release, held) = channel::<()>();
            assert_eq!(run(readers, move || held.recv().is_ok()), None);
            hanging.push(release);
        }
        hanging
    }

    /// Keeps every reader busy, with reads that are not late, until what it gives is dropped.
    pub(in super::super) fn all_held_up(readers: &Readers) -> Vec<Sender<()>> {
        let (entered, is_entered) = channel();
        let held = (0..MOST_READERS).map(|_| {
            let ((release, held), entered) = (channel::<()>(), entered.clone());
            let read = move || {
                let _ = (entered.send(()), held.recv());
            };
            readers.enqueue(Box::new(read)).expect("the readers are not closed");
            is_entered.recv().expect("a reader begins it");
            release
        });
        held.collect()
    }

    #[test]
    fn a_read_gives_what_it_found() {
        let readers = Readers::new(LONG);
        assert_eq!((0..100).map(|n| run(&readers, move || n)).sum::<Option<i32>>(), Some(4950));
        assert!(readers.shared.state.lock().alive <= MOST_READERS);
        readers.close();
        assert_eq!(readers.shared.state.lock().alive, 0);
        assert_eq!(run(&readers, || 1), None);
    }

    #[test]
    fn a_read_that_hangs_is_given_up_and_the_next_is_answered() {
        let readers = Readers::new(LONG);
        let (release, held) = channel::<()>();
        assert_eq!(run_within(&readers, SHORT, move || held.recv().is_ok()), None);
        assert_eq!(run(&readers, || 7), Some(7));
        drop(release);
    }

    #[test]
    fn while_all_readers_hang_no_read_waits_and_afterwards_they_go_on() {
        let readers = Readers::new(SHORT);
        let held = all_hang(&readers);
        let (begun, is_begun) = channel();
        assert_eq!(run_within(&readers, LONG, move || begun.send(())), None);
        // It was dropped, not put behind those that hang.
        assert!(is_begun.recv().is_err());
        assert_eq!(readers.shared.state.lock().alive, MOST_READERS);
        drop(held);
        let mut answer = None;
        while answer.is_none() {
            thread::yield_now();
            answer = run_within(&readers, LONG, || 7);
        }
        assert_eq!(answer, Some(7));
    }

    #[test]
    fn a_read_that_no_reader_began_in_time_is_not_begun_later() {
        let readers = Readers::new(SHORT);
        let mut held = vec![];
        thread::scope(|scope| {
            for _ in 0..MOST_READERS {
                let (release, hold) = channel::<()>();
                let (begun, is_begun) = channel();
                let read = move || {
                    begun.send(()).unwrap();
                    hold.recv().is_ok()
                };
                scope.spawn(|| run_within(&readers, LONG, read));
                is_begun.recv().unwrap();
                held.push(release);
            }
            let (begun, is_begun) = channel();
            assert_eq!(run(&readers, move || begun.send(())), None);
            assert!(is_begun.recv().is_err());
            held.clear();
        });
        readers.close();
    }

    #[test]
    fn a_read_that_panics_is_a_miss_and_the_readers_go_on() {
        let readers = Readers::new(LONG);
        for _ in 0..MOST_READERS * 2 {
            assert_eq!(run::<()>(&readers, || panic!("on purpose")), None);
        }
        assert_eq!(run(&readers, || 7), Some(7));
    }

    #[test]
    fn closing_leaves_a_read_that_hangs_behind() {
        let readers = Readers::new(SHORT);
        let held = all_hang(&readers);
        readers.close();
        assert_eq!(readers.shared.state.lock().alive, MOST_READERS);
        drop(held);
    }
}
