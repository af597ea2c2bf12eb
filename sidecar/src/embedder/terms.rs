//! What is done about an item that is not cached: the model's policy, and what the caller asks for on top of it. Pure.

use std::time::Duration;

use embark_crds::contract::{CachePolicy, OnMiss};
use tokio::time::Instant;

use crate::{
    flight::Interest,
    input::{Class, Wishes},
};

/// The terms of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Terms {
    /// What becomes of an item that is not cached.
    pub(super) on_miss: Miss,
    /// Whether entries count at all.
    pub(super) looks_up: bool,
    /// Whether what is computed is kept.
    pub(super) stores: bool,
    pub(super) class: Class,
    max_age: Option<Duration>,
    began: Instant,
}

/// What becomes of an item that is not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// It is computed and waited for; after the budget the default vector is given, and it is computed all the same.
    Wait(Option<Duration>),
    /// The default vector is given at once, and it is computed behind.
    Default,
    /// It fails, and nothing is computed.
    Fail,
}

// === impl Terms ===

impl Terms {
    /// The terms of a call that began at `began`. A caller that says what to do with a miss says all of it: the policy's
    /// budget is not for those who ask to wait.
    pub(super) fn of(policy: &CachePolicy, wishes: Wishes, began: Instant) -> Self {
        let budget = match wishes.on_miss {
            Some(_) => wishes.wait_budget,
            None => wishes.wait_budget.or(policy.wait_budget),
        };
        let on_miss = match wishes.on_miss.unwrap_or(policy.on_miss) {
            _ if wishes.cache.only_if_cached => Miss::Fail,
            OnMiss::Wait => Miss::Wait(budget),
            OnMiss::ReturnDefault => Miss::Default,
            OnMiss::Fail => Miss::Fail,
        };
        Terms {
            on_miss,
            looks_up: !wishes.cache.no_cache,
            stores: !wishes.cache.no_store,
            class: wishes.class,
            max_age: wishes.cache.max_age,
            began,
        }
    }

    /// Whether an entry of that age counts.
    pub(super) fn takes(&self, age_ms: u64) -> bool {
        self.max_age.is_none_or(|max_age| u128::from(age_ms) <= max_age.as_millis())
    }

    /// Whether an entry past its time to live is computed anew behind its answer.
    pub(super) fn refreshes(&self) -> bool {
        self.stores && self.on_miss != Miss::Fail
    }

    /// Whether who waits takes the default vector rather than an error.
    pub(super) fn takes_default(&self) -> bool {
        matches!(self.on_miss, Miss::Wait(Some(_)))
    }

    /// What the caller asks of a flight.
    pub(super) fn interest(&self) -> Interest {
        let floor = if self.looks_up {
            self.max_age.and_then(|max_age| self.began.checked_sub(max_age))
        } else {
            Some(self.began)
        };
        let is_strict = !self.looks_up || self.max_age.is_some();
        Interest { floor, is_strict, class: self.class, store: self.stores }
    }

    /// What is asked of a flight behind an answer that was given.
    pub(super) fn fill(&self) -> Interest {
        Interest { class: Class::Background, ..self.interest() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{input::CacheControl, model::test_support};

    const MS: Duration = Duration::from_millis(1);

    fn policy(on_miss: OnMiss, wait_budget: Option<Duration>) -> CachePolicy {
        CachePolicy { on_miss, wait_budget, ..test_support::policy() }
    }

    #[tokio::test]
    async fn the_table_of_misses_holds() {
        let only = CacheControl { only_if_cached: true, ..CacheControl::default() };
        let wish = |on_miss, wait_budget| Wishes { on_miss, wait_budget, ..Wishes::default() };
        let cases = [
            (OnMiss::Wait, Some(MS), wish(None, None), Miss::Wait(Some(MS))),
            (OnMiss::Wait, Some(MS), wish(None, Some(2 * MS)), Miss::Wait(Some(2 * MS))),
            (OnMiss::Wait, Some(MS), wish(Some(OnMiss::Wait), None), Miss::Wait(None)),
            (OnMiss::Wait, None, wish(Some(OnMiss::ReturnDefault), None), Miss::Default),
            (OnMiss::ReturnDefault, None, wish(None, None), Miss::Default),
            (OnMiss::ReturnDefault, None, wish(Some(OnMiss::Wait), None), Miss::Wait(None)),
            (OnMiss::Fail, None, wish(None, None), Miss::Fail),
            (OnMiss::Wait, None, Wishes { cache: only, ..wish(None, None) }, Miss::Fail),
            (
                OnMiss::Wait,
                None,
                Wishes { cache: only, ..wish(Some(OnMiss::ReturnDefault), None) },
                Miss::Fail,
            ),
        ];
        for (on_miss, budget, wishes, expected) in cases {
            let terms = Terms::of(&policy(on_miss, budget), wishes, Instant::now());
            assert_eq!(terms.on_miss, expected, "{on_miss:?} {wishes:?}");
        }
    }

    #[tokio::test]
    async fn an_age_bounds_entries_and_flights() {
        let began = Instant::now();
        let of = |cache| {
            let wishes = Wishes { cache, ..Wishes::default() };
            Terms::of(&policy(OnMiss::Wait, None), wishes, began)
        };
        let free = of(CacheControl::default());
        assert!(free.takes(u64::MAX) && free.interest().floor.is_none());
        let aged = of(CacheControl { max_age: Some(5 * MS), ..CacheControl::default() });
        assert!(aged.takes(5) && !aged.takes(6));
        assert_eq!(aged.interest().floor, began.checked_sub(5 * MS));
        let anew = of(CacheControl { no_cache: true, ..CacheControl::default() });
        assert!(!anew.looks_up && anew.interest().floor == Some(began));
    }
}
