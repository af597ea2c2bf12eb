//! Which entries no longer count whatever their age: the epoch, and the invalidation rules of this process.
//!
//! A rule on everything is one number and stays. A rule on items is kept in memory only as long as something that began
//! before it could still bring a covered entry back: once the disk tier holds it too, and every operation that began
//! before that has ended, it is purged from the memory tier a last time and forgotten.
//!
//! *Guarantees*: from the moment that [`Rules::add_items`] or [`Rules::invalidate_all`] returns, [`Rules::standing`]
//! covers their entries, until no operation can know them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::RwLock;

use super::freshness::Standing;
use crate::key::CacheKey;

/// More rules on items than this become one rule on everything.
const MOST_ITEM_RULES: usize = 65_536;
/// Rules forgotten at the end of one operation, so that no caller pays for many.
const FORGOTTEN_AT_ONCE: usize = 256;

/// The rules of one model's cache.
#[derive(Default)]
pub struct Rules {
    epoch: AtomicU64,
    all_before: Limit,
    items_until: Limit,
    any_items: AtomicBool,
    state: RwLock<State>,
}

/// A time that only rises, or none; stored one higher, 0 being none.
#[derive(Default)]
struct Limit(AtomicU64);

#[derive(Default)]
struct State {
    items: HashMap<CacheKey, ItemRule>,
    /// Rises whenever rules on items are complete.
    generation: u64,
    /// Operations under way, by the generation in which they began.
    live: BTreeMap<u64, usize>,
    /// Complete rules, by the last generation whose operations they must outlive.
    complete: VecDeque<(u64, Vec<CacheKey>)>,
}

struct ItemRule {
    before_ms: u64,
    /// Invalidations of this key that are not complete.
    pending: u32,
    /// The last generation whose operations it must outlive.
    release: u64,
}

// === impl Rules ===

impl Rules {
    /// What stands over a key. Reads a map only while there are rules on items.
    pub fn standing(&self, key: &CacheKey) -> Standing {
        let all = self.all_before.get();
        let item = if self.any_items.load(Ordering::SeqCst) {
            self.state.read().items.get(key).map(|rule| rule.before_ms)
        } else {
            None
        };
        Standing { epoch: self.epoch(), invalidated_before_ms: all.max(item) }
    }

    /// The epoch that counts.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Makes `epoch` count when it is higher than the one before; gives the one that counts then.
    pub fn raise_epoch(&self, epoch: u64) -> u64 {
        self.epoch.fetch_max(epoch, Ordering::SeqCst).max(epoch)
    }

    /// Entries of any key created at or before `before_ms` do not count from now on.
    pub fn invalidate_all(&self, before_ms: u64) {
        self.all_before.raise(before_ms);
    }

    /// The highest rule on everything.
    pub fn all_before_ms(&self) -> Option<u64> {
        self.all_before.get()
    }

    /// The highest time of any rule on items: no rule on items covers an entry created after it.
    pub fn items_until_ms(&self) -> Option<u64> {
        self.items_until.get()
    }

    /// Takes over the highest time of any rule on items that is on disk.
    pub fn raise_items_until(&self, before_ms: u64) {
        self.items_until.raise(before_ms);
    }

    /// Entries of `keys` created at or before `before_ms` do not count from now on. Call [`Rules::complete_items`] with
    /// the same keys once the disk tier holds the rules; until then none of them is forgotten.
    pub fn add_items(&self, keys: &[CacheKey], before_ms: u64) {
        self.items_until.raise(before_ms);
        let mut state = self.state.write();
        if state.items.len() + keys.len() > MOST_ITEM_RULES {
            let highest = state.items.values().map(|rule| rule.before_ms).max();
            self.all_before.raise(before_ms.max(highest.unwrap_or(0)));
            state.items.clear();
            state.complete.clear();
            self.any_items.store(false, Ordering::SeqCst);
            return;
        }
        for key in keys {
            let rule = state.items.entry(*key);
            let rule = rule.or_insert(ItemRule { before_ms, pending: 0, release: 0 });
            rule.before_ms = rule.before_ms.max(before_ms);
            rule.pending += 1;
        }
        self.any_items.store(!state.items.is_empty(), Ordering::SeqCst);
    }

    /// The disk tier holds the rules on `keys`: they may be forgotten once every operation under way has ended.
    pub fn complete_items(&self, keys: Vec<CacheKey>, purge: impl FnMut(&CacheKey, u64)) {
        let mut state = self.state.write();
        let generation = state.generation;
        for key in &keys {
            if let Some(rule) = state.items.get_mut(key) {
                rule.pending = rule.pending.saturating_sub(1);
                rule.release = generation;
            }
        }
        state.complete.push_back((generation, keys));
        state.generation += 1;
        self.forget(&mut state, purge);
    }

    /// An operation begins; the number must be handed to [`Rules::end`].
    pub fn begin(&self) -> u64 {
        let mut state = self.state.write();
        let generation = state.generation;
        *state.live.entry(generation).or_insert(0) += 1;
        generation
    }

    /// An operation ends. `purge` removes a covered entry from the memory tier for the last time.
    pub fn end(&self, generation: u64, purge: impl FnMut(&CacheKey, u64)) {
        let mut state = self.state.write();
        if let Some(count) = state.live.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&generation);
            }
        }
        self.forget(&mut state, purge);
    }

    /// How many rules on items are in memory.
    pub fn items(&self) -> usize {
        self.state.read().items.len()
    }

    fn forget(&self, state: &mut State, mut purge: impl FnMut(&CacheKey, u64)) {
        let oldest = state.live.first_key_value().map_or(u64::MAX, |(generation, _)| *generation);
        let mut budget = FORGOTTEN_AT_ONCE;
        while let Some((generation, mut keys)) = state.complete.pop_front() {
            if generation >= oldest || budget == 0 {
                state.complete.push_front((generation, keys));
                break;
            }
            let at_once = keys.split_off(keys.len().saturating_sub(budget));
            budget -= at_once.len();
            for key in at_once {
                // A later invalidation of the same key keeps the rule for its own, later release.
                let spent = |rule: &ItemRule| rule.pending == 0 && rule.release <= generation;
                if let Some(rule) = state.items.get(&key).filter(|rule| spent(rule)) {
                    purge(&key, rule.before_ms);
                    state.items.remove(&key);
                }
            }
            if !keys.is_empty() {
                state.complete.push_front((generation, keys));
            }
        }
        if state.items.is_empty() {
            self.any_items.store(false, Ordering::SeqCst);
        }
    }
}

// === impl Limit ===

impl Limit {
    fn get(&self) -> Option<u64> {
        self.0.load(Ordering::SeqCst).checked_sub(1)
    }

    fn raise(&self, to: u64) {
        self.0.fetch_max(to.saturating_add(1), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> CacheKey {
        CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn before(rules: &Rules, number: u64) -> Option<u64> {
        rules.standing(&key(number)).invalidated_before_ms
    }

    #[test]
    fn an_item_rule_is_kept_until_the_operations_before_its_completion_have_ended() {
        let (rules, mut purged) = (Rules::default(), vec![]);
        let early = rules.begin();
        rules.add_items(&[key(1)], 50);
        let between = rules.begin();
        rules.complete_items(vec![key(1)], |_, _| panic!("an operation is under way"));
        let late = rules.begin();
        rules.end(early, |_, _| panic!("an operation is under way"));
        assert_eq!((before(&rules, 1), before(&rules, 2)), (Some(50), None));
        rules.end(between, |key, before| purged.push((*key, before)));
        assert_eq!((purged, rules.items(), before(&rules, 1)), (vec![(key(1), 50)], 0, None));
        rules.end(late, |_, _| panic!("nothing is left"));
    }

    #[test]
    fn a_rule_that_is_not_complete_stays() {
        let rules = Rules::default();
        rules.add_items(&[key(1)], 50);
        let operation = rules.begin();
        rules.end(operation, |_, _| panic!("the disk tier does not hold it"));
        assert_eq!(before(&rules, 1), Some(50));
    }

    #[test]
    fn a_second_rule_on_a_key_outlives_the_first() {
        let rules = Rules::default();
        rules.add_items(&[key(1)], 50);
        rules.add_items(&[key(1)], 40);
        rules.complete_items(vec![key(1)], |_, _| panic!("another is pending"));
        assert_eq!(before(&rules, 1), Some(50));
        rules.complete_items(vec![key(1)], |_, _| {});
        assert_eq!(before(&rules, 1), None);
    }

    #[test]
    fn too_many_item_rules_become_one_on_everything() {
        let rules = Rules::default();
        let keys: Vec<_> = (0..MOST_ITEM_RULES as u64).map(key).collect();
        rules.add_items(&keys, 70);
        assert_eq!(before(&rules, u64::MAX), None);
        rules.add_items(&[key(u64::MAX)], 60);
        assert_eq!(
            (rules.items(), before(&rules, 0), before(&rules, 7_777_777)),
            (0, Some(70), Some(70))
        );
        rules.complete_items(keys, |_, _| {});
    }

    #[test]
    fn many_rules_are_forgotten_a_few_at_a_time() {
        let rules = Rules::default();
        let keys: Vec<_> = (0..1_000).map(key).collect();
        let operation = rules.begin();
        rules.add_items(&keys, 70);
        rules.complete_items(keys, |_, _| {});
        rules.end(operation, |_, _| {});
        assert_eq!(rules.items(), 1_000 - FORGOTTEN_AT_ONCE);
        while rules.items() > 0 {
            let operation = rules.begin();
            rules.end(operation, |_, _| {});
        }
        assert_eq!(before(&rules, 1), None);
    }

    #[test]
    fn times_and_epochs_only_rise() {
        let rules = Rules::default();
        assert_eq!(rules.all_before_ms(), None);
        rules.invalidate_all(0);
        assert_eq!(before(&rules, 1), Some(0));
        rules.invalidate_all(9);
        rules.invalidate_all(3);
        assert_eq!(before(&rules, 1), Some(9));
        assert_eq!((rules.raise_epoch(4), rules.raise_epoch(2), rules.epoch()), (4, 4, 4));
    }
}
