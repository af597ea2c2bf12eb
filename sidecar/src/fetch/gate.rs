//! Who may fetch: so many at a time, in all and of one host, all models together, and no more than memory has room for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{input::Class, memory};

/// Fetches at a time. Who finds no room waits; what may wait is bounded by the places in the batch queue, which each of
/// them holds.
const IN_ALL: usize = 32;
/// Of one host. Who finds no room lets those of other hosts past.
pub(super) const PER_HOST: usize = 16;
/// The share of either that what is fetched behind an answer may take: one in this many.
const BACKGROUND_SHARE: usize = 2;
/// Names that are asked for at a time. Who finds no room waits, within its fetch's time.
const LOOKUPS: usize = 32;
/// The share of the process's memory that files may take that were fetched and are not decoded: one in this many. Who finds
/// too little waits, within its fetch's time.
const MEMORY_SHARE: u64 = 8;
/// As much may be taken however little memory there is.
const LEAST_MEMORY: u64 = 64 * 1024 * 1024;
const KIB: u64 = 1024;

/// The process's own: its network and memory have no other owner.
static OF_PROCESS: LazyLock<Gate> = LazyLock::new(|| {
    let memory = (memory::limit() / MEMORY_SHARE).max(LEAST_MEMORY);
    Gate::of((IN_ALL, PER_HOST), memory)
});

/// Gives out turns.
#[derive(Clone, Debug)]
pub struct Gate {
    line: Arc<Line>,
    lookups: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    /// All of it, in KiB.
    most_memory: u32,
}

/// The right to fetch from a host, given on when it is dropped.
#[derive(Debug)]
pub struct Turn {
    line: Arc<Line>,
    host: Arc<str>,
    class: Class,
}

#[derive(Debug)]
struct Line {
    in_all: usize,
    per_host: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Turns that are taken, by class.
    taken: [usize; 2],
    of_host: HashMap<Arc<str>, [usize; 2]>,
    /// By class, in the order of coming.
    waiting: [VecDeque<Waiter>; 2],
}

#[derive(Debug)]
struct Waiter {
    host: Arc<str>,
    turn: oneshot::Sender<Turn>,
}

// === impl Gate ===

impl Gate {
    /// The process's.
    pub fn of_process() -> Self {
        OF_PROCESS.clone()
    }

    /// One of so many turns, in all and of one host, and so many bytes.
    pub fn of((in_all, per_host): (usize, usize), memory: u64) -> Self {
        let most_memory = u32::try_from(memory / KIB).unwrap_or(u32::MAX / 8);
        Gate {
            line: Arc::new(Line { in_all, per_host, state: Mutex::default() }),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            memory: Arc::new(Semaphore::new(most_memory as usize)),
            most_memory,
        }
    }

    /// Waits for a turn at a host.
    pub(super) async fn turn(&self, host: &str, class: Class) -> Turn {
        let receiver = {
            let mut state = self.line.state.lock();
            let host: Arc<str> = host.into();
            if state.has_room(&self.line, &host, class) {
                state.take(&host, class);
                drop(state);
                return Turn { line: Arc::clone(&self.line), host, class };
            }
            let (turn, receiver) = oneshot::channel();
            state.waiting[class as usize].push_back(Waiter { host, turn });
            receiver
        };
        receiver.await.expect("who waits stays in line until it has its turn")
    }

    /// Waits for room for a file. One that is larger than all there is waits for all of it.
    pub(super) async fn memory(&self, bytes: u64) -> OwnedSemaphorePermit {
        let room = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX).min(self.most_memory);
        let taken = Arc::clone(&self.memory).acquire_many_owned(room).await;
        taken.expect("it is never closed")
    }

    pub(super) fn lookups(&self) -> Arc<Semaphore> {
        Arc::clone(&self.lookups)
    }
}

// === impl Turn ===

impl Turn {
    /// Whether it was waited for.
    pub(super) fn class(&self) -> Class {
        self.class
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line.state.lock().give_back(&self.host, self.class);
        self.line.go_on();
    }
}

// === impl Line ===

impl Line {
    /// Gives turns to those for whom there is room, those first that somebody waits for.
    fn go_on(self: &Arc<Self>) {
        let mut given = Vec::new();
        let mut state = self.state.lock();
        for class in Class::ALL {
            let waiting = std::mem::take(&mut state.waiting[class as usize]);
            for waiter in waiting {
                if waiter.turn.is_closed() {
                    continue;
                }
                if state.has_room(self, &waiter.host, class) {
                    state.take(&waiter.host, class);
                    given.push((waiter, class));
                } else {
                    state.waiting[class as usize].push_back(waiter);
                }
            }
        }
        drop(state);
        for (Waiter { host, turn }, class) in given {
            // One that nobody takes any more is dropped, and so given on.
            let _ = turn.send(Turn { line: Arc::clone(self), host, class });
        }
    }
}

// === impl State ===

impl State {
    fn has_room(&self, line: &Line, host: &str, class: Class) -> bool {
        let of_host = self.of_host.get(host).copied().unwrap_or_default();
        [(self.taken, line.in_all), (of_host, line.per_host)].into_iter().all(|(taken, most)| {
            let background = taken[Class::Background as usize];
            let share = (most / BACKGROUND_SHARE).max(1);
            taken.iter().sum::<usize>() < most && (class == Class::Waiting || background < share)
        })
    }

    fn take(&mut self, host: &Arc<str>, class: Class) {
        self.taken[class as usize] += 1;
        self.of_host.entry(Arc::clone(host)).or_default()[class as usize] += 1;
    }

    fn give_back(&mut self, host: &str, class: Class) {
        self.taken[class as usize] -= 1;
        let Some(taken) = self.of_host.get_mut(host) else { return };
        taken[class as usize] -= 1;
        if *taken == [0, 0] {
            self.of_host.remove(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn gate() -> Gate {
        Gate::of((4, 2), 64 * KIB)
    }

    /// The turn, if it can be had at once.
    fn now(gate: &Gate, host: &str, class: Class) -> Option<Turn> {
        gate.turn(host, class).now_or_never()
    }

    #[test]
    fn turns_are_bounded_in_all_and_by_host() {
        let gate = gate();
        let of = |host| now(&gate, host, Class::Waiting);
        let a = [of("a"), of("a")];
        assert!(a.iter().all(Option::is_some) && of("a").is_none());
        let b = [of("b"), of("b")];
        assert!(b.iter().all(Option::is_some) && of("c").is_none());
        drop(a);
        assert!(of("b").is_none() && of("c").is_some());
        drop(b);
        let state = gate.line.state.lock();
        assert!(state.taken == [0, 0] && state.of_host.is_empty());
    }

    #[test]
    fn the_background_leaves_room_for_what_is_waited_for() {
        let gate = gate();
        let first = now(&gate, "a", Class::Background);
        assert!(first.is_some() && now(&gate, "a", Class::Background).is_none());
        assert!(now(&gate, "a", Class::Waiting).is_some());
        let second = now(&gate, "b", Class::Background);
        assert!(second.is_some() && now(&gate, "c", Class::Background).is_none());
    }

    #[tokio::test]
    async fn who_is_waited_for_goes_first_and_who_left_is_passed_over() {
        let gate = Gate::of((1, 1), KIB);
        let held = now(&gate, "a", Class::Waiting).unwrap();
        let mut behind = Box::pin(gate.turn("a", Class::Background));
        let mut left = Box::pin(gate.turn("a", Class::Waiting));
        let mut waits = Box::pin(gate.turn("b", Class::Waiting));
        assert!(futures_util::poll!(behind.as_mut()).is_pending());
        assert!(futures_util::poll!(left.as_mut()).is_pending());
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(left);
        drop(held);
        assert!(futures_util::poll!(behind.as_mut()).is_pending());
        let turn = waits.await;
        assert_eq!((&*turn.host, turn.class()), ("b", Class::Waiting));
        drop(turn);
        assert_eq!(behind.await.class(), Class::Background);
    }

    #[tokio::test]
    async fn a_turn_that_was_given_and_not_taken_is_given_on() {
        let gate = Gate::of((1, 1), KIB);
        let held = now(&gate, "a", Class::Waiting).unwrap();
        let mut first = Box::pin(gate.turn("a", Class::Waiting));
        let mut second = Box::pin(gate.turn("a", Class::Waiting));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(held);
        drop(first);
        second.await;
    }

    #[test]
    fn memory_is_bounded_and_one_large_file_waits_for_all_of_it() {
        let gate = gate();
        let half = gate.memory(32 * KIB).now_or_never();
        assert!(half.is_some() && gate.memory(1 << 40).now_or_never().is_none());
        drop(half);
        assert!(gate.memory(1 << 40).now_or_never().is_some());
    }
}
