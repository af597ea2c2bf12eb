//! How much memory images that are being decoded may take, all models together. Who finds too little waits for those in
//! front, in the order of coming: each of them goes on by itself, so the wait ends.

use std::sync::{Arc, LazyLock};

use parking_lot::{Condvar, Mutex};

use crate::memory;

/// The share of the process's memory that images may take while they are decoded: one in this many.
const SHARE: u64 = 4;
/// As much may be taken however little memory there is.
const LEAST_BYTES: u64 = 64 * 1024 * 1024;

/// The process's own: memory has no other owner.
static OF_PROCESS: LazyLock<Arc<Budget>> = LazyLock::new(|| Budget::of(memory::limit()));

/// Bytes that may be taken.
#[derive(Debug)]
pub(super) struct Budget {
    most: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: u64,
    /// The number of who comes next.
    next: u64,
    /// The number of whose turn it is.
    turn: u64,
}

/// Bytes that are taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

/// What of a process's memory images may take while they are decoded.
pub fn working_bytes(memory_bytes: u64) -> u64 {
    (memory_bytes / SHARE).max(LEAST_BYTES)
}

// === impl Budget ===

impl Budget {
    /// The process's.
    pub(super) fn of_process() -> Arc<Self> {
        Arc::clone(&OF_PROCESS)
    }

    /// A share of this memory.
    pub(super) fn of(memory_bytes: u64) -> Arc<Self> {
        let most = working_bytes(memory_bytes);
        let state = Mutex::new(State { free: most, next: 0, turn: 0 });
        Arc::new(Budget { most, state, changed: Condvar::new() })
    }

    /// The most that one image may take.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Takes bytes, when it is its turn and they are free; `None`: they never are.
    pub(super) fn take(&self, bytes: u64) -> Option<Taken<'_>> {
        if bytes > self.most {
            return None;
        }
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        while state.turn != number || state.free < bytes {
            self.changed.wait(&mut state);
        }
        state.turn += 1;
        state.free -= bytes;
        drop(state);
        self.changed.notify_all();
        Some(Taken { budget: self, bytes })
    }
}

// === impl Taken ===

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.budget.state.lock().free += self.bytes;
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_is_more_than_all_is_refused_and_what_is_taken_comes_back() {
        let budget = Budget::of(0);
        assert_eq!(budget.most(), LEAST_BYTES);
        assert!(budget.take(LEAST_BYTES + 1).is_none());
        for _ in 0..3 {
            assert!(budget.take(LEAST_BYTES).is_some());
        }
    }

    #[test]
    fn who_finds_too_little_waits_and_nobody_goes_past() {
        let budget = Budget::of(0);
        let (done, order) = channel();
        std::thread::scope(|scope| {
            let first = budget.take(LEAST_BYTES / 2).unwrap();
            for (number, bytes) in [(1, LEAST_BYTES), (2, 1)] {
                let (ours, done) = (Arc::clone(&budget), done.clone());
                scope.spawn(move || {
                    let taken = ours.take(bytes).unwrap();
                    done.send(number).unwrap();
                    drop(taken);
                });
                while budget.state.lock().next != number + 1 {
                    std::thread::yield_now();
                }
            }
            assert!(order.try_recv().is_err());
            drop(first);
        });
        assert_eq!(order.try_iter().collect::<Vec<u64>>(), [1, 2]);
    }
}
