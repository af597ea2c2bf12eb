//! Whether an entry still counts under the policy of now. Pure: time and rules come in as values.

use std::time::Duration;

use embark_crds::contract::CachePolicy;

use crate::key::CacheKey;

/// How far in the future an entry may have been created, so that a clock that was set back a little loses nothing.
const FUTURE_TOLERANCE_MS: u64 = 60_000;

/// When and under which epoch an entry was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The policy's epoch at that time.
    pub epoch: u64,
}

/// What stands over a key now, beside the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The one epoch that counts.
    pub epoch: u64,
    /// Entries created at or before this time do not count, in milliseconds since 1970; `None`: no rule stands.
    pub invalidated_before_ms: Option<u64>,
}

/// What an entry is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The policy of now.
    pub policy: &'a CachePolicy,
    /// What stands over the key.
    pub standing: Standing,
}

/// Whether an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fresh,
    /// It is past its time to live, and may be given out while it is computed anew.
    Stale,
    /// It is past all that.
    Expired,
    /// It was made under another epoch.
    OtherEpoch,
    /// A rule covers it.
    Invalidated,
    /// The clock was set back by more than a minute since: its age is unknown.
    FromTheFuture,
}

// === impl Standing ===

impl Standing {
    /// Whether a rule covers what was created at that time.
    pub fn invalidates(&self, created_ms: u64) -> bool {
        self.invalidated_before_ms.is_some_and(|before| before >= created_ms)
    }
}

// === free functions ===

/// Judges the entry of `key` that bears `stamp`. A rule and an epoch are said before an age, for no later policy lifts
/// them.
pub fn judge(key: &CacheKey, stamp: Stamp, terms: Terms<'_>, now_ms: u64) -> Verdict {
    let Terms { policy, standing } = terms;
    if standing.invalidates(stamp.created_ms) {
        return Verdict::Invalidated;
    }
    if stamp.epoch != standing.epoch {
        return Verdict::OtherEpoch;
    }
    if stamp.created_ms > now_ms.saturating_add(FUTURE_TOLERANCE_MS) {
        return Verdict::FromTheFuture;
    }
    let fresh_until = stamp.created_ms.saturating_add(lifetime_ms(policy, key));
    let grace_ms = u64::try_from(policy.stale_while_revalidate.as_millis()).unwrap_or(u64::MAX);
    if now_ms < fresh_until {
        Verdict::Fresh
    } else if now_ms < fresh_until.saturating_add(grace_ms) {
        Verdict::Stale
    } else {
        Verdict::Expired
    }
}

/// How long an entry of `key` is fresh: the time to live, less a share of the jitter that belongs to the key.
fn lifetime_ms(policy: &CachePolicy, key: &CacheKey) -> u64 {
    let jitter = f64::from(policy.ttl_jitter_percent.min(100)) / 100.0;
    let kept = (1.0 - jitter * key.unit()).clamp(0.0, 1.0);
    let lifetime = Duration::try_from_secs_f64(policy.ttl.as_secs_f64() * kept);
    let lifetime = lifetime.unwrap_or(policy.ttl).min(policy.ttl);
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::test_support;

    const NOW: u64 = 1_000_000;

    fn policy(ttl_ms: u64, ttl_jitter_percent: u8) -> CachePolicy {
        let ttl = Duration::from_millis(ttl_ms);
        CachePolicy { ttl, ttl_jitter_percent, epoch: 3, ..test_support::policy() }
    }

    /// A key whose unit is 0, 0.5 or just under 1.
    fn key(last: [u8; 4]) -> CacheKey {
        let mut bytes = [0; 32];
        bytes[28..].copy_from_slice(&last);
        CacheKey::from_bytes(bytes)
    }

    fn verdict(key: &CacheKey, (created_ms, epoch): (u64, u64), before: Option<u64>) -> Verdict {
        let standing = Standing { epoch: 3, invalidated_before_ms: before };
        let policy = &policy(1_000, 10);
        judge(key, Stamp { created_ms, epoch }, Terms { policy, standing }, NOW)
    }

    #[test]
    fn the_table_of_verdicts_holds() {
        let (none, half, all) = (key([0; 4]), key([0, 0, 0, 0x80]), key([0xff; 4]));
        let cases = [
            ("just made", &none, (NOW, 3), None, Verdict::Fresh),
            ("one millisecond left", &none, (NOW - 999, 3), None, Verdict::Fresh),
            ("exactly its time to live", &none, (NOW - 1_000, 3), None, Verdict::Expired),
            ("half its jitter, before", &half, (NOW - 949, 3), None, Verdict::Fresh),
            ("half its jitter, after", &half, (NOW - 950, 3), None, Verdict::Expired),
            ("all its jitter, before", &all, (NOW - 899, 3), None, Verdict::Fresh),
            ("all its jitter, after", &all, (NOW - 901, 3), None, Verdict::Expired),
            ("an earlier epoch", &none, (NOW, 2), None, Verdict::OtherEpoch),
            ("a later epoch", &none, (NOW, 4), None, Verdict::OtherEpoch),
            ("a rule of the same moment", &none, (NOW, 3), Some(NOW), Verdict::Invalidated),
            ("a rule before it", &none, (NOW, 3), Some(NOW - 1), Verdict::Fresh),
            ("a rule before an expired one", &none, (1, 3), Some(0), Verdict::Expired),
            ("a rule at the beginning of time", &none, (0, 3), Some(0), Verdict::Invalidated),
            ("a rule over another epoch", &none, (NOW, 2), Some(NOW), Verdict::Invalidated),
            ("a minute ahead", &none, (NOW + 60_000, 3), None, Verdict::Fresh),
            ("over a minute ahead", &none, (NOW + 60_001, 3), None, Verdict::FromTheFuture),
            ("the end of time", &none, (u64::MAX, 3), None, Verdict::FromTheFuture),
        ];
        for (name, key, stamp, before, expected) in cases {
            assert_eq!(verdict(key, stamp, before), expected, "{name}");
        }
    }

    #[test]
    fn an_endless_time_to_live_does_not_overflow() {
        let standing = Standing { epoch: 0, invalidated_before_ms: None };
        let policy = &CachePolicy { ttl: Duration::MAX, ..policy(0, 10) };
        let stamp = Stamp { created_ms: NOW, epoch: 0 };
        assert_eq!(
            judge(&key([1; 4]), stamp, Terms { policy, standing }, u64::MAX - 1),
            Verdict::Fresh
        );
    }

    #[test]
    fn past_its_time_to_live_an_entry_is_stale_for_a_while() {
        let standing = Standing { epoch: 3, invalidated_before_ms: None };
        let grace = Duration::from_millis(500);
        let policy = &CachePolicy { stale_while_revalidate: grace, ..policy(1_000, 0) };
        let at = |age: u64| {
            let stamp = Stamp { created_ms: NOW - age, epoch: 3 };
            judge(&key([0; 4]), stamp, Terms { policy, standing }, NOW)
        };
        let verdicts = [999, 1_000, 1_499, 1_500].map(at);
        assert_eq!(verdicts, [Verdict::Fresh, Verdict::Stale, Verdict::Stale, Verdict::Expired]);
        let invalidated = Standing { invalidated_before_ms: Some(NOW), ..standing };
        let stamp = Stamp { created_ms: NOW - 1_200, epoch: 3 };
        let verdict = judge(&key([0; 4]), stamp, Terms { policy, standing: invalidated }, NOW);
        assert_eq!(verdict, Verdict::Invalidated);
    }

    proptest! {
        #[test]
        fn jitter_only_ever_shortens(last: [u8; 4], ttl in 0_u64..1 << 40, percent in 0_u8..=100) {
            let lifetime = lifetime_ms(&policy(ttl, percent), &key(last));
            prop_assert!(lifetime <= ttl);
            let least = ttl as f64 * (1.0 - f64::from(percent) / 100.0);
            prop_assert!(lifetime as f64 >= least - 1.0);
        }
    }
}
