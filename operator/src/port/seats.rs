//! Whose turn it is at each connection of a port, and who makes room for others.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The connections of a port.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seats: BTreeMap<u64, State>,
}

/// A connection, as it is seen by others.
#[derive(Debug)]
struct State {
    /// Since when its client keeps it waiting; `None`: the client waits, or it was dismissed.
    idle_since: Option<Instant>,
    /// Bytes of a body that is not complete.
    held: usize,
    dismissal: Arc<Notify>,
}

/// A connection's place. It is free again once this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    dismissal: Arc<Notify>,
    has_asked: AtomicBool,
}

// === impl Seats ===

impl Seats {
    pub(super) fn take(this: &Arc<Seats>) -> Seat {
        let dismissal = Arc::new(Notify::new());
        let mut taken = this.0.lock();
        let number = taken.next;
        taken.next += 1;
        let state =
            State { idle_since: Some(Instant::now()), held: 0, dismissal: Arc::clone(&dismissal) };
        taken.seats.insert(number, state);
        Seat { seats: Arc::clone(this), number, dismissal, has_asked: AtomicBool::new(false) }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().seats.len()
    }

    /// Ends the connection whose client has kept it waiting longest.
    pub(super) fn dismiss_longest(&self) {
        let mut taken = self.0.lock();
        let idle = taken.seats.values_mut().filter(|state| state.idle_since.is_some());
        if let Some(state) = idle.min_by_key(|state| state.idle_since) {
            state.dismiss();
        }
    }

    /// Ends connections that hold that many bytes of bodies which are not complete, but for this one.
    pub(super) fn dismiss_holders(&self, bytes: usize, but: &Seat) {
        let mut taken = self.0.lock();
        let holders = taken.seats.iter_mut().filter(|(number, state)| {
            **number != but.number && state.idle_since.is_some() && state.held > 0
        });
        let mut holders: Vec<&mut State> = holders.map(|(_, state)| state).collect();
        holders.sort_by_key(|state| state.idle_since);
        let mut freed = 0;
        for state in holders {
            if freed >= bytes {
                break;
            }
            freed += state.held;
            state.dismiss();
        }
    }
}

// === impl State ===

impl State {
    fn dismiss(&mut self) {
        self.idle_since = None;
        self.dismissal.notify_one();
    }
}

// === impl Seat ===

impl Seat {
    /// Waits until it is to make room.
    pub(super) async fn dismissed(&self) {
        self.dismissal.notified().await;
    }

    /// Whether anything was ever asked.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// Its client asks, and sends what belongs to it.
    pub(super) fn asks(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
        self.set(Some(Instant::now()), 0);
    }

    /// The body has so many bytes until now.
    pub(super) fn holds(&self, bytes: usize) {
        if let Some(state) = self.seats.0.lock().seats.get_mut(&self.number) {
            state.held = bytes;
        }
    }

    /// The client has said everything, and waits.
    pub(super) fn waits(&self) {
        self.set(None, 0);
    }

    /// The client has its answer.
    pub(super) fn rests(&self) {
        self.set(Some(Instant::now()), 0);
    }

    fn set(&self, idle_since: Option<Instant>, held: usize) {
        if let Some(state) = self.seats.0.lock().seats.get_mut(&self.number) {
            (state.idle_since, state.held) = (idle_since, held);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.lock().seats.remove(&self.number);
    }
}
