//! Places among what waits, bounded in rows and bytes. It knows neither rows nor lanes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::input::Class;

/// The share of the queue that the background may fill, so that what is waited for always finds room.
const BACKGROUND_SHARE: u32 = 2;
/// Bytes of inputs that wait, to be prepared or to be computed.
const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// Why a row may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many rows wait as may.
    #[error("{0} items wait already, as many as may (spec.batching.queue.maxItems)")]
    Items(u32),
    /// As many bytes of inputs wait as may.
    #[error("{0} bytes of inputs wait already; at most {MAX_BYTES} may")]
    Bytes(u64),
    /// What waits would cost too much.
    #[error("what waits would cost {0}; at most {1} is allowed (spec.batching.queue.maxTokens)")]
    Cost(u64, u64),
    /// It would wait for longer than its caller has time.
    #[error("it would wait for about {} ms, and the call has {} ms left", .0.as_millis(), .1.as_millis())]
    Wait(Duration, Duration),
    /// The batcher computes what waits and takes no more.
    #[error("the server is shutting down")]
    Closed,
}

/// The right of one row to wait.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Taken>,
    class: Class,
    bytes: u64,
}

/// Places that are taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    items: [AtomicU32; 2],
    bytes: AtomicU64,
}

// === impl Place ===

impl Place {
    /// What it is a place among.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Has it hold as many bytes as its input has become.
    ///
    /// # Errors
    /// As many bytes wait as may; it holds what it held.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let more = (bytes as u64).saturating_sub(self.bytes);
        let before = self.taken.bytes.fetch_add(more, Ordering::AcqRel);
        // One that is larger than all that may wait waits alone, rather than never.
        if before > self.bytes && before + more > share(self.class, MAX_BYTES) {
            self.taken.bytes.fetch_sub(more, Ordering::AcqRel);
            return Err(Full::Bytes(before));
        }
        self.bytes += more;
        Ok(())
    }

    /// Makes it one of the background's, of which there are so many; `false`: all are taken.
    pub(super) fn demote(&mut self, most: u32) -> bool {
        if self.class == Class::Background {
            return true;
        }
        let [waiting, background] = &self.taken.items;
        let more = |taken: u32| (taken < most).then_some(taken + 1);
        if background.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return false;
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
        self.class = Class::Background;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.items[self.class as usize].fetch_sub(1, Ordering::AcqRel);
        self.taken.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

// === impl Taken ===

impl Taken {
    /// A place for an input of `bytes`, where at most `max_items` may wait.
    ///
    /// # Errors
    /// As many rows or bytes wait as may.
    pub(super) fn reserve(
        self: &Arc<Self>,
        class: Class,
        bytes: usize,
        max_items: u32,
    ) -> Result<Place, Full> {
        let most = share(class, max_items.into());
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let [first, second] = &self.items;
        let (own, other) = match class {
            Class::Waiting => (first, second),
            Class::Background => (second, first),
        };
        let more = |taken: u32| {
            let all = taken.saturating_add(other.load(Ordering::Acquire));
            (taken < most && all < max_items).then_some(taken + 1)
        };
        own.fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .map_err(|_| Full::Items(most))?;
        let mut place = Place { taken: Arc::clone(self), class, bytes: 0 };
        place.hold(bytes)?;
        Ok(place)
    }
}

// === free functions ===

/// How much of a limit a class may take.
pub(super) fn share(class: Class, limit: u64) -> u64 {
    match class {
        Class::Waiting => limit,
        Class::Background => (limit / u64::from(BACKGROUND_SHARE)).max(1),
    }
}
