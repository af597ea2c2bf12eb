//! The way to the writer: one queue, so that order holds between writes and rules. Writes are bounded and dropped when it
//! is full; rules and other commands are few, bounded too, and refused when they are not.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};

/// Commands that are not writes, at most.
const MOST_CONTROLS: usize = 1024;
/// Commands that readers may have waiting: they can find the same fault any number of times, and rules need room.
const MOST_HINTS: usize = 128;

/// A queue of `W`rites and `C`ontrols.
pub(super) struct Queue<W, C> {
    state: Mutex<State<W, C>>,
    more: Condvar,
    most_writes: usize,
}

/// One thing to do.
pub(super) enum Command<W, C> {
    Write(W),
    Control(C),
}

struct State<W, C> {
    commands: VecDeque<Command<W, C>>,
    writes: usize,
}

// === impl Queue ===

impl<W, C> Queue<W, C> {
    pub(super) fn new(most_writes: usize) -> Self {
        let state = State { commands: VecDeque::new(), writes: 0 };
        Queue { state: Mutex::new(state), more: Condvar::new(), most_writes }
    }

    /// Whether there was room for a write.
    pub(super) fn offer(&self, write: W) -> bool {
        let mut state = self.state.lock();
        if state.writes >= self.most_writes {
            return false;
        }
        state.writes += 1;
        state.commands.push_back(Command::Write(write));
        drop(state);
        self.more.notify_one();
        true
    }

    /// Whether there was room for a command.
    pub(super) fn command(&self, control: C) -> bool {
        self.control(control, MOST_CONTROLS)
    }

    /// Sends a command that will be sent again if need be; dropped when there is no room.
    pub(super) fn hint(&self, control: C) {
        self.control(control, MOST_HINTS);
    }

    /// Sends the one command that there is always room for: to end.
    pub(super) fn last(&self, control: C) {
        self.control(control, usize::MAX);
    }

    fn control(&self, control: C, most: usize) -> bool {
        let mut state = self.state.lock();
        if state.commands.len() - state.writes >= most {
            return false;
        }
        state.commands.push_back(Command::Control(control));
        drop(state);
        self.more.notify_one();
        true
    }

    /// The writes at the head of the queue, at most `most` of them, or else the command there; neither when nothing came
    /// within `limit`.
    pub(super) fn next(&self, most: usize, limit: Duration) -> (Vec<W>, Option<C>) {
        let mut state = self.state.lock();
        if state.commands.is_empty() {
            self.more.wait_for(&mut state, limit);
        }
        let mut writes = vec![];
        while writes.len() < most {
            match state.commands.pop_front() {
                Some(Command::Write(write)) => {
                    state.writes -= 1;
                    writes.push(write);
                }
                Some(Command::Control(control)) if writes.is_empty() => {
                    return (writes, Some(control));
                }
                Some(control) => {
                    state.commands.push_front(control);
                    break;
                }
                None => break,
            }
        }
        (writes, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn order_holds_between_writes_and_commands() {
        let queue = Queue::new(8);
        assert!(queue.offer(1) && queue.offer(2) && queue.command('a') && queue.offer(3));
        assert_eq!(queue.next(10, NOW), (vec![1, 2], None));
        assert_eq!(queue.next(10, NOW), (vec![], Some('a')));
        assert_eq!(queue.next(10, NOW), (vec![3], None));
        assert_eq!(queue.next(10, NOW), (vec![], None));
    }

    #[test]
    fn a_full_queue_drops_writes_and_takes_commands() {
        let queue = Queue::new(1);
        assert!(queue.offer(1) && !queue.offer(2) && queue.command('a'));
        assert_eq!(queue.next(10, NOW), (vec![1], None));
        assert!(queue.offer(3));
    }

    #[test]
    fn a_queue_full_of_commands_takes_the_last_one() {
        let queue = Queue::<(), char>::new(1);
        assert!((0..MOST_CONTROLS).all(|_| queue.command('a')) && !queue.command('b'));
        queue.last('c');
        let mut all = std::iter::from_fn(|| queue.next(1, NOW).1);
        assert_eq!(all.by_ref().last(), Some('c'));
    }
}
