//! Flights: the one computation under way for a key, with everybody who is interested in it.
//!
//! ```text
//! join ─┬─ a flight that is young enough, and that nobody of a lower class leads ── follow
//!       └─ else lead: the new flight takes over whoever follows an older one that was not begun
//! lead ── aboard ── take: begun, unless nobody is interested any more ── land: everybody is told
//! ```
//! A follower is interested as long as it holds its [`Seat`]; a fill is interested to the end. The [`Lead`] is the duty to
//! land: whoever drops it without doing so tells everybody that the computation was lost.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    cache::{Operation, entry::Entry},
    error::{Error, ErrorKind},
    input::Class,
    key::CacheKey,
    metrics::Source,
};

/// The flights of one model.
#[derive(Default)]
pub struct Flights {
    by_key: Mutex<HashMap<CacheKey, Arc<Flight>>>,
}

/// What somebody asks of a flight.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// The flight must not have begun before.
    pub floor: Option<Instant>,
    /// Whether nothing but a computation will do: an entry found on disk may be too old.
    pub is_strict: bool,
    /// Whether it is waited for.
    pub class: Class,
    /// Whether what it computes is to be kept.
    pub store: bool,
}

/// Who asks for what.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The key.
    pub key: CacheKey,
    /// What is asked of the flight.
    pub interest: Interest,
    /// When the caller's own flight would begin.
    pub began: Instant,
    /// The same, as the cache knows it.
    pub operation: &'a Arc<Operation>,
}

/// What became of joining.
pub enum Joined<T> {
    /// Another leads.
    Follows(Seat),
    /// The caller leads, with what was reserved for it.
    Leads(Seat, Lead, T),
}

/// A follower's place, given up when it is dropped.
pub struct Seat {
    landing: oneshot::Receiver<Landing>,
    flight: Arc<Flight>,
}

/// The duty to land a flight.
pub struct Lead(Arc<Flight>);

/// How a flight ended.
pub type Landing = Result<Landed, Error>;

/// What a flight brought.
#[derive(Clone, Debug)]
pub struct Landed {
    /// The vector, and how it came to be.
    pub entry: Entry,
    /// Where it came from.
    pub origin: Origin,
    /// How long it took.
    pub stages: Stages,
}

/// Where a flight found its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The model gave it.
    Computed,
    /// A tier of the cache had it.
    Found {
        /// Which one.
        source: Source,
        /// Milliseconds since its computation began.
        age_ms: u64,
        /// Whether it is past its time to live, and computed anew.
        is_stale: bool,
    },
}

/// How long the parts of a flight took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// The disk tier.
    pub disk: Duration,
    /// Preparing the input.
    pub preprocess: Duration,
    /// Waiting for a worker.
    pub queue: Duration,
    /// The model's run.
    pub inference: Duration,
}

/// Whether a flight is to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is begun.
    Begin,
    /// Nobody waits for it any more; it is wanted later.
    Later,
    /// Nobody wants it; it has ended.
    Drop,
}

/// A computation under way.
struct Flight {
    key: CacheKey,
    began: Instant,
    operation: Arc<Operation>,
    home: Weak<Flights>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Whether it computes, whatever is on disk.
    computes: bool,
    /// Whether it is led for somebody to whom what is on disk may be too old.
    is_strict: bool,
    /// The flight that has taken over its followers.
    successor: Option<Arc<Flight>>,
    /// The class that it is led in.
    class: Class,
    followers: Vec<Follower>,
    /// Whether it is wanted although nobody waits.
    is_fill: bool,
    store: bool,
}

struct Follower {
    landing: oneshot::Sender<Landing>,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// On its way to a worker.
    Aboard,
    /// Being computed.
    Begun,
    /// Over.
    Ended,
}

// === impl Flights ===

impl Flights {
    /// Joins the flight of a key, or leads a new one.
    ///
    /// `counts` tells whether what a flight of that operation brings counts for the key, so that nobody follows one that an
    /// invalidation has overtaken. `reserve` takes what a lead needs; when there is none of it, an older flight is
    /// followed if need be.
    ///
    /// # Errors
    /// `reserve` has failed, and there is no flight to follow.
    pub fn join<T, E>(
        self: &Arc<Self>,
        ask: Ask<'_>,
        counts: impl Fn(&Operation) -> bool,
        reserve: impl FnOnce() -> Result<T, E>,
    ) -> Result<Joined<T>, E> {
        if let Some(seat) = self.follow(ask, &counts, false) {
            return Ok(Joined::Follows(seat));
        }
        // Not under the lock: what makes room for it ends flights that nobody wants, which takes the lock.
        let reserved = match reserve() {
            Ok(reserved) => reserved,
            Err(error) => {
                let seat = self.follow(ask, &counts, true);
                return seat.map(Joined::Follows).ok_or(error);
            }
        };
        let mut by_key = self.by_key.lock();
        let flight = Arc::new(Flight::led(self, ask));
        if let Some(older) = by_key.get(&ask.key) {
            // Somebody leads since, or a worker has begun it since.
            let seat = older.seat_for(ask, &counts, false);
            let seat = seat.or_else(|| {
                (!flight.take_over(older)).then(|| older.seat_for(ask, &counts, false)).flatten()
            });
            if let Some(seat) = seat {
                return Ok(Joined::Follows(seat));
            }
        }
        let seat = flight.seat(ask.interest.class);
        by_key.insert(ask.key, Arc::clone(&flight));
        Ok(Joined::Leads(seat, Lead(flight), reserved))
    }

    /// A seat in the flight of a key, if there is one that suits.
    fn follow(
        &self,
        ask: Ask<'_>,
        counts: impl Fn(&Operation) -> bool,
        whatever_class: bool,
    ) -> Option<Seat> {
        self.by_key.lock().get(&ask.key)?.seat_for(ask, counts, whatever_class)
    }

    /// The number of flights that can be joined.
    pub fn len(&self) -> usize {
        self.by_key.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Seat ===

impl Seat {
    /// Waits for the landing. May be cancelled and called again.
    pub async fn landing(&mut self) -> Landing {
        (&mut self.landing).await.unwrap_or_else(|_| Err(lost()))
    }

    /// The landing, when there was one; else the flight goes on, although nobody waits for it any more.
    pub fn leave_behind(mut self) -> Option<Landing> {
        // Before the seat is given up: a flight that nobody wants is not begun.
        self.flight.fill();
        self.landing.try_recv().ok()
    }

    /// When the flight's computation began, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.flight.operation.created_ms()
    }
}

// === impl Lead ===

impl Lead {
    /// Its key.
    pub fn key(&self) -> &CacheKey {
        &self.0.key
    }

    /// When it began.
    pub fn operation(&self) -> &Arc<Operation> {
        &self.0.operation
    }

    /// The class in which it is wanted now; `None`: nobody wants it, and it has ended.
    pub fn wanted(&self) -> Option<Class> {
        let mut state = self.0.state.lock();
        if state.phase == Phase::Ended {
            return None;
        }
        let wanted = state.wanted();
        if wanted.is_none() {
            // Whoever comes now must lead: this flight is not begun any more.
            state.phase = Phase::Ended;
            drop(state);
            self.0.go();
        }
        wanted
    }

    /// It was looked for elsewhere; from now on it can only be computed.
    pub fn set_computes(&self) {
        self.0.state.lock().computes = true;
    }

    /// Whether it can only be computed: it was looked for elsewhere, or took over followers to whom what is found may be
    /// too old.
    pub fn computes(&self) -> bool {
        self.0.state.lock().computes
    }

    /// Goes on in another class. From then on, whoever waits leads a flight of its own and takes this one's followers.
    pub fn set_class(&self, class: Class) {
        self.0.state.lock().class = class;
    }

    /// Begins the computation in a class, if anybody wants it.
    pub fn take(&self, class: Class) -> Take {
        let Some(wanted) = self.wanted() else { return Take::Drop };
        let mut state = self.0.state.lock();
        if state.phase == Phase::Ended {
            // Taken over since.
            Take::Drop
        } else if wanted == Class::Background && class == Class::Waiting {
            state.class = Class::Background;
            Take::Later
        } else {
            state.phase = Phase::Begun;
            Take::Begin
        }
    }

    /// Whether anybody wants what it brings to be kept.
    pub fn is_stored(&self) -> bool {
        self.0.state.lock().store
    }

    /// Tells everybody how it ended.
    pub fn land(self, landing: Landing) {
        self.0.land(landing);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.0.state.lock().phase != Phase::Ended {
            self.0.land(Err(lost()));
        }
    }
}

// === impl Flight ===

impl Flight {
    fn led(home: &Arc<Flights>, Ask { key, interest, began, operation }: Ask<'_>) -> Self {
        let state = State {
            phase: Phase::Aboard,
            computes: false,
            is_strict: interest.is_strict,
            successor: None,
            class: interest.class,
            followers: Vec::new(),
            is_fill: false,
            store: interest.store,
        };
        let (operation, home) = (Arc::clone(operation), Arc::downgrade(home));
        Flight { key, began, operation, home, state: Mutex::new(state) }
    }

    /// A seat in it, unless it has ended or is too old. Who waits does not follow what is led behind and was not begun,
    /// except where there is no other way.
    fn seat_for(
        self: &Arc<Self>,
        Ask { interest, operation, .. }: Ask<'_>,
        counts: impl Fn(&Operation) -> bool,
        whatever_class: bool,
    ) -> Option<Seat> {
        let is_young = interest.floor.is_none_or(|floor| self.began >= floor);
        if !is_young || !counts(&self.operation) {
            return None;
        }
        let mut state = self.state.lock();
        let goes = state.phase == Phase::Begun || whatever_class || state.class <= interest.class;
        // An equal item of the same call asks for the same.
        let is_own = Arc::ptr_eq(&self.operation, operation);
        let may_be_old = interest.is_strict && !state.computes && !is_own;
        if state.phase == Phase::Ended || !goes || may_be_old {
            return None;
        }
        state.store |= interest.store;
        Some(state.seat(self, interest.class))
    }

    fn seat(self: &Arc<Self>, class: Class) -> Seat {
        self.state.lock().seat(self, class)
    }

    /// Takes the followers of an older flight that was not begun, which ends it: what this one computes is younger, and so
    /// serves them too. What it may find elsewhere is not. `false`: it was begun, or has ended.
    fn take_over(self: &Arc<Self>, older: &Flight) -> bool {
        let mut theirs = older.state.lock();
        if theirs.phase != Phase::Aboard {
            return false;
        }
        theirs.phase = Phase::Ended;
        theirs.successor = Some(Arc::clone(self));
        let mut ours = self.state.lock();
        ours.followers.append(&mut theirs.followers);
        ours.computes |= theirs.computes || theirs.is_strict;
        ours.is_fill |= theirs.is_fill;
        ours.store |= theirs.store;
        true
    }

    /// Has it computed although nobody may wait for it any more; or the flight that has taken over its followers.
    fn fill(self: &Arc<Self>) {
        let mut flight = Arc::clone(self);
        loop {
            let mut state = flight.state.lock();
            let Some(successor) = state.successor.clone() else {
                state.is_fill = true;
                return;
            };
            drop(state);
            flight = successor;
        }
    }

    fn land(&self, landing: Landing) {
        let mut state = self.state.lock();
        if state.phase == Phase::Ended {
            return;
        }
        state.phase = Phase::Ended;
        let followers = std::mem::take(&mut state.followers);
        drop(state);
        self.go();
        for follower in followers {
            // Some have left.
            let _ = follower.landing.send(landing.clone());
        }
    }

    /// Nobody can join it any more.
    fn go(&self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut by_key = home.by_key.lock();
        if by_key.get(&self.key).is_some_and(|flight| std::ptr::eq(&**flight, self)) {
            by_key.remove(&self.key);
        }
    }
}

// === impl State ===

impl State {
    fn seat(&mut self, flight: &Arc<Flight>, class: Class) -> Seat {
        let (landing, receiver) = oneshot::channel();
        self.followers.push(Follower { landing, class });
        Seat { landing: receiver, flight: Arc::clone(flight) }
    }

    /// The highest class of those who are still interested.
    fn wanted(&self) -> Option<Class> {
        let present = self.followers.iter().filter(|follower| !follower.landing.is_closed());
        let fill = self.is_fill.then_some(Class::Background);
        present.map(|follower| follower.class).chain(fill).min()
    }
}

// === free functions ===

fn lost() -> Error {
    Error::new(ErrorKind::WorkerLost, "the computation of the item was lost")
}
