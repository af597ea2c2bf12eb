//! Flights: the one computation under way for a key, with everybody who is interested in it.
//!
//! ```text
//! join ─┬─ a flight that is not begun: follow it; it is as young as who asks last
//!       │    led behind, and asked for by who waits: lead it from now on, in the place of who did
//!       ├─ one that is begun, and young enough: follow it
//!       └─ else lead another
//! lead ── aboard ── take: begun, unless nobody is interested any more ── land: everybody is told
//! ```
//! A follower is interested as long as it holds its [`Seat`]; a fill is interested to the end. The [`Lead`] is the duty to
//! land: whoever drops it without doing so tells everybody that the computation was lost.

mod state;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    cache::{Operation, entry::Entry},
    error::{Error, ErrorKind},
    input::Class,
    key::CacheKey,
    metrics::Source,
};
use state::{Flight, Phase};

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

/// The duty to land a flight, until another takes it over.
pub struct Lead {
    flight: Arc<Flight>,
    /// How many have led it before.
    number: u32,
}

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

/// Who wants a flight that is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Somebody, in this class.
    In(Class),
    /// Nobody any more; it has ended.
    ByNobody,
    /// Another leads it, in a better place.
    Elsewhere,
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
    /// Another leads it.
    Elsewhere,
}

// === impl Flights ===

impl Flights {
    /// Joins the flight of a key, or leads one.
    ///
    /// `counts` tells whether what a flight of that operation brings counts for the key, so that nobody follows one that an
    /// invalidation has overtaken. `reserve` takes what a lead needs; when there is none of it, a flight that is led behind
    /// is followed if need be.
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
        if let Some(flight) = by_key.get(&ask.key) {
            // Somebody leads since, or a worker has begun it since.
            if let Some(seat) = flight.seat_for(ask, &counts, false) {
                return Ok(Joined::Follows(seat));
            }
            if let Some((seat, number)) = flight.lead_on(ask, &counts) {
                let flight = Arc::clone(flight);
                return Ok(Joined::Leads(seat, Lead { flight, number }, reserved));
            }
        }
        let flight = Arc::new(Flight::led(self, ask));
        let seat = flight.seat(ask.interest.class);
        by_key.insert(ask.key, Arc::clone(&flight));
        Ok(Joined::Leads(seat, Lead { flight, number: 0 }, reserved))
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
        self.flight.state.lock().is_fill = true;
        self.landing.try_recv().ok()
    }

    /// The landing, when there was one; else the flight goes on only if others want it.
    pub fn leave(mut self) -> Option<Landing> {
        self.landing.try_recv().ok()
    }

    /// When the flight's computation began, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.flight.state.lock().operation.created_ms()
    }
}

// === impl Lead ===

impl Lead {
    /// Its key.
    pub fn key(&self) -> &CacheKey {
        &self.flight.key
    }

    /// When it began. Until it is begun it may become younger.
    pub fn operation(&self) -> Arc<Operation> {
        Arc::clone(&self.flight.state.lock().operation)
    }

    /// Who wants it now. When it is nobody, it has ended.
    pub fn wanted(&self) -> Wanted {
        let mut state = self.flight.state.lock();
        let wanted = state.wanted(self.number);
        if wanted == Wanted::ByNobody && state.phase != Phase::Ended {
            // Whoever comes now must lead: this flight is not begun any more.
            state.phase = Phase::Ended;
            drop(state);
            self.flight.go();
        }
        wanted
    }

    /// It was looked for elsewhere; from now on it can only be computed.
    pub fn set_computes(&self) {
        let mut state = self.flight.state.lock();
        state.computes |= state.is_led_by(self.number);
    }

    /// Goes on in another class. From then on, whoever waits takes the lead of what goes on behind.
    pub fn set_class(&self, class: Class) {
        let mut state = self.flight.state.lock();
        if state.is_led_by(self.number) {
            state.class = class;
        }
    }

    /// Begins the computation in a class, if anybody wants it.
    pub fn take(&self, class: Class) -> Take {
        let mut state = self.flight.state.lock();
        match state.wanted(self.number) {
            Wanted::Elsewhere => Take::Elsewhere,
            Wanted::ByNobody => {
                state.phase = Phase::Ended;
                drop(state);
                self.flight.go();
                Take::Drop
            }
            Wanted::In(Class::Background) if class == Class::Waiting => {
                state.class = Class::Background;
                Take::Later
            }
            Wanted::In(_) => {
                state.phase = Phase::Begun;
                Take::Begin
            }
        }
    }

    /// Whether anybody wants what it brings to be kept.
    pub fn is_stored(&self) -> bool {
        self.flight.state.lock().store
    }

    /// Tells everybody how it ended.
    pub fn land(self, landing: Landing) {
        self.end(landing);
    }

    /// Tells everybody what was found; given back when somebody follows for whom that may be too old.
    pub fn land_found(self, landed: Landed) -> Option<Self> {
        let lands = self
            .flight
            .land_if(Ok(landed), |state| state.is_led_by(self.number) && !state.computes);
        (!lands).then_some(self)
    }

    fn end(&self, landing: Landing) {
        self.flight.land_if(landing, |state| state.is_led_by(self.number));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.end(Err(lost()));
    }
}

// === free functions ===

fn lost() -> Error {
    Error::new(ErrorKind::WorkerLost, "the computation of the item was lost")
}
