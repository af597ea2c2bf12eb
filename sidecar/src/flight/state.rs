//! One flight: how far it is, who leads it, and who is interested in it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{Ask, Flights, Interest, Landing, Seat, Wanted};
use crate::{cache::Operation, input::Class, key::CacheKey};

/// A computation under way.
pub(super) struct Flight {
    pub(super) key: CacheKey,
    home: Weak<Flights>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// It brings nothing that began before. While it is not begun it becomes as young as who asks.
    pub(super) began: Instant,
    /// The same, as the cache knows it.
    pub(super) operation: Arc<Operation>,
    /// Whether it computes, whatever is on disk.
    pub(super) computes: bool,
    /// Whether it is led for somebody to whom what others find on disk may be too old.
    is_strict: bool,
    /// How many led it before who leads it now.
    leads: u32,
    /// The class that it is led in.
    pub(super) class: Class,
    followers: Vec<Follower>,
    /// Whether it is wanted although nobody waits.
    pub(super) is_fill: bool,
    pub(super) store: bool,
}

struct Follower {
    landing: oneshot::Sender<Landing>,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// On its way to a worker.
    Aboard,
    /// Being computed.
    Begun,
    /// Over.
    Ended,
}

// === impl Flight ===

impl Flight {
    pub(super) fn led(
        home: &Arc<Flights>,
        Ask { key, interest, began, operation }: Ask<'_>,
    ) -> Self {
        let state = State {
            phase: Phase::Aboard,
            began,
            operation: Arc::clone(operation),
            computes: false,
            is_strict: interest.is_strict,
            leads: 0,
            class: interest.class,
            followers: Vec::new(),
            is_fill: false,
            store: interest.store,
        };
        Flight { key, home: Arc::downgrade(home), state: Mutex::new(state) }
    }

    /// A seat in it, unless it has ended, or is begun and too old. Who waits does not follow what is led behind and was not
    /// begun, except where there is no other way.
    pub(super) fn seat_for(
        self: &Arc<Self>,
        ask: Ask<'_>,
        counts: impl Fn(&Operation) -> bool,
        whatever_class: bool,
    ) -> Option<Seat> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Ended => return None,
            Phase::Begun if !state.is_young_for(ask.interest) || !counts(&state.operation) => {
                return None;
            }
            Phase::Begun => {}
            Phase::Aboard if !whatever_class && ask.interest.class < state.class => return None,
            Phase::Aboard => {
                // An equal item of the same call asks for the same.
                state.computes |= ask.interest.is_strict && !state.is_of(ask);
                state.rejuvenate(ask, counts);
            }
        }
        state.store |= ask.interest.store;
        Some(state.seat(self, ask.interest.class))
    }

    /// Leads it from now on, when it is not begun and is led behind what is asked for; with the number of its new lead.
    pub(super) fn lead_on(
        self: &Arc<Self>,
        ask: Ask<'_>,
        counts: impl Fn(&Operation) -> bool,
    ) -> Option<(Seat, u32)> {
        let mut state = self.state.lock();
        if state.phase != Phase::Aboard || state.class <= ask.interest.class {
            return None;
        }
        // Who leads now goes by its own age, not by that of who led.
        state.computes |= state.is_strict;
        state.is_strict = ask.interest.is_strict;
        state.rejuvenate(ask, counts);
        state.leads += 1;
        state.class = ask.interest.class;
        state.store |= ask.interest.store;
        let seat = state.seat(self, ask.interest.class);
        Some((seat, state.leads))
    }

    pub(super) fn seat(self: &Arc<Self>, class: Class) -> Seat {
        self.state.lock().seat(self, class)
    }

    /// Tells everybody how it ended, unless it has; if it may end so.
    pub(super) fn land_if(&self, landing: Landing, may: impl FnOnce(&State) -> bool) -> bool {
        let mut state = self.state.lock();
        if state.phase == Phase::Ended || !may(&state) {
            return false;
        }
        state.phase = Phase::Ended;
        let followers = std::mem::take(&mut state.followers);
        drop(state);
        self.go();
        for follower in followers {
            // Some have left.
            let _ = follower.landing.send(landing.clone());
        }
        true
    }

    /// Nobody can join it any more.
    pub(super) fn go(&self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut by_key = home.by_key.lock();
        if by_key.get(&self.key).is_some_and(|flight| std::ptr::eq(&**flight, self)) {
            by_key.remove(&self.key);
        }
    }
}

// === impl State ===

impl State {
    pub(super) fn is_led_by(&self, number: u32) -> bool {
        self.leads == number
    }

    fn is_young_for(&self, interest: Interest) -> bool {
        interest.floor.is_none_or(|floor| self.began >= floor)
            && (!interest.is_strict || self.computes)
    }

    /// Whether it is led for the very call that asks.
    fn is_of(&self, ask: Ask<'_>) -> bool {
        Arc::ptr_eq(&self.operation, ask.operation)
    }

    /// Makes what is not begun young enough for who asks now: nothing of it was computed before.
    fn rejuvenate(&mut self, ask: Ask<'_>, counts: impl Fn(&Operation) -> bool) {
        let is_young = ask.interest.floor.is_none_or(|floor| self.began >= floor);
        if !self.is_of(ask) && (!is_young || !counts(&self.operation)) {
            (self.began, self.operation) = (ask.began, Arc::clone(ask.operation));
        }
    }

    fn seat(&mut self, flight: &Arc<Flight>, class: Class) -> Seat {
        if self.followers.len() == self.followers.capacity() {
            // Those who have left make room before more is taken: it may be asked for very often while it is under way.
            self.followers.retain(|follower| !follower.landing.is_closed());
        }
        let (landing, receiver) = oneshot::channel();
        self.followers.push(Follower { landing, class });
        Seat { landing: receiver, flight: Arc::clone(flight) }
    }

    /// Followers, some of whom may have left.
    #[cfg(test)]
    pub(super) fn followers(&self) -> usize {
        self.followers.len()
    }

    /// Who wants it, as the lead of this number sees it.
    pub(super) fn wanted(&self, number: u32) -> Wanted {
        if !self.is_led_by(number) {
            return Wanted::Elsewhere;
        }
        if self.phase == Phase::Ended {
            return Wanted::ByNobody;
        }
        let present = self.followers.iter().filter(|follower| !follower.landing.is_closed());
        let fill = self.is_fill.then_some(Class::Background);
        let class = present.map(|follower| follower.class).chain(fill).min();
        class.map_or(Wanted::ByNobody, Wanted::In)
    }
}
