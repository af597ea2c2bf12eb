//! A moment, as people write it and as messages have it.

use std::str::FromStr;

use prost_types::Timestamp;

/// A moment, as RFC 3339 writes it. Vectors whose computation began at or before it are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before(Timestamp);

/// The text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a time by RFC 3339, such as 2026-01-31T12:00:00Z")]
pub struct NotATime;

// === impl Before ===

impl Before {
    /// As messages have it.
    pub(crate) fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl FromStr for Before {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        // A date alone, or a time without its offset, is read by the library as UTC, which its writer may not mean.
        let Some((_, time)) = text.split_once(['T', 't']) else { return Err(NotATime) };
        if !time.ends_with(['Z', 'z']) && !time.contains(['+', '-']) {
            return Err(NotATime);
        }
        text.parse().map(Before).map_err(|_| NotATime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_date_a_time_and_an_offset() {
        let seconds = |text: &str| text.parse::<Before>().map(|Before(time)| time.seconds);
        assert_eq!(seconds("1970-01-01T00:01:00Z"), Ok(60));
        assert_eq!(seconds("1970-01-01T01:01:00.5+01:00"), Ok(60));
        for wrong in ["", "now", "1970-01-01", "1970-01-01T00:01:00", "1970-13-01T00:00:00Z"] {
            assert_eq!(seconds(wrong), Err(NotATime), "{wrong:?}");
        }
    }
}
