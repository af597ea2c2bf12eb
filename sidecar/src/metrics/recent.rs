//! What was counted in the last minutes, of counters that only rise. Pure: it is told the time.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// How far back it remembers.
const WINDOW: Duration = Duration::from_secs(300);

/// Answered items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// From the cache, fresh or stale.
    pub hits: u64,
    /// In all.
    pub items: u64,
}

/// What the counters were at times of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(Instant, Answered)>>);

// === impl Recent ===

impl Recent {
    /// Notes what the counters are. To be called every some seconds.
    pub(super) fn note(&self, now: Instant, counted: Answered) {
        let mut samples = self.0.lock();
        samples.push_back((now, counted));
        // One from before the window stays, to count from.
        while samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            samples.pop_front();
        }
    }

    /// What was counted since about the beginning of the window, or of the process.
    pub(super) fn since(&self, counted: Answered) -> Answered {
        let before = self.0.lock().front().map(|(_, answered)| *answered).unwrap_or_default();
        Answered {
            hits: counted.hits.saturating_sub(before.hits),
            items: counted.items.saturating_sub(before.items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_the_window_does_not_count() {
        let recent = Recent::default();
        let answered = |items| Answered { hits: items / 2, items };
        assert_eq!(recent.since(answered(10)), answered(10), "since the process began");
        let start = Instant::now();
        for minute in 0..20 {
            recent
                .note(start + Duration::from_secs(60) * minute, answered(u64::from(minute) * 100));
        }
        // At minute 20, notes of minutes 14 to 19 are kept.
        assert_eq!(recent.since(answered(2_000)), answered(600));
    }
}
