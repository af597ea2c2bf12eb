//! Which entries no longer count whatever their age: the epoch, and the invalidation rules of this process.
//!
//! A rule on everything is one number and stays. A rule on items is kept in memory only as long as something that began
//! before it could still bring a covered entry back: once the disk tier holds it too, and every operation that began
//! before that has ended, it is purged from the memory tier a last time and forgotten.
//!
//! Lookups read the map of rules under a lock, so whoever writes to it does so a few keys at a time, and purges without it.
//!
//! *Guarantees*: from the moment that [`Rules::add_items`] or [`Rules::invalidate_all`] returns, [`Rules::standing`]
//! covers their entries, until no operation can know them.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    mem::take,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::RwLock;

use super::freshness::Standing;
use crate::key::CacheKey;

/// More keys than this in rules on items, each rule counted for itself, become one rule on everything.
const MOST_ITEM_RULES: usize = 65_536;
/// Keys that are written under one hold of the lock that lookups wait for.
const PIECE: usize = 256;
/// Keys forgotten at the end of one operation, but for a last piece, so that no caller pays for many.
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

/// The rules that one invalidation added, by which it completes its own and no others.
#[must_use = "rules whose ticket is lost stay as long as the process"]
pub struct Ticket(Vec<Piece>);

/// A time that only rises, or none; stored one higher, 0 being none.
#[derive(Default)]
struct Limit(AtomicU64);

#[derive(Default)]
struct State {
    /// A tree, for a hash table that grows would keep lookups waiting.
    items: BTreeMap<CacheKey, ItemRule>,
    /// At least the highest time in `items`.
    highest_ms: u64,
    /// Keys in pieces that are not forgotten, complete or not: what memory is bounded by.
    remembered: usize,
    /// How often all rules on items became one on everything.
    clears: u64,
    /// Rises whenever rules on items are complete.
    generation: u64,
    /// Operations under way, by the generation in which they began.
    live: BTreeMap<u64, usize>,
    /// Complete rules, by the last generation whose operations they must outlive.
    complete: VecDeque<(u64, Piece)>,
}

struct ItemRule {
    before_ms: u64,
    /// Pieces with this key that are not complete.
    pending: u32,
    /// The last generation whose operations it must outlive.
    release: u64,
}

/// Some keys of one invalidation.
struct Piece {
    keys: Vec<CacheKey>,
    /// [`State::clears`] when they were added. After another clear their rules are gone, and a rule on one of their keys
    /// is not theirs.
    clears: u64,
}

/// Rules that may be forgotten once they are purged.
struct Ripe {
    generation: u64,
    piece: Piece,
    rules: Vec<(CacheKey, u64)>,
}

// === impl Rules ===

impl Rules {
    /// What stands over a key. Reads a map only while there are rules on items.
    pub fn standing(&self, key: &CacheKey) -> Standing {
        let item = if self.any_items.load(Ordering::SeqCst) {
            self.state.read().items.get(key).map(|rule| rule.before_ms)
        } else {
            None
        };
        // Read last: rules on items that are gone by now may have become this one.
        let all = self.all_before.get();
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

    /// Entries of `keys` created at or before `before_ms` do not count from now on. Hand the ticket to
    /// [`Rules::complete_items`] once the disk tier holds the rules; until then none of them is forgotten. Takes time in
    /// proportion to the keys.
    pub fn add_items(&self, keys: &[CacheKey], before_ms: u64) -> Ticket {
        self.items_until.raise(before_ms);
        // After a piece that did not fit there is a rule on everything, which covers the rest.
        let pieces = keys.chunks(PIECE).map_while(|keys| self.add_piece(keys, before_ms));
        Ticket(pieces.collect())
    }

    /// The disk tier holds the rules of the ticket: they may be forgotten once every operation under way has ended.
    /// `purge` removes a covered entry from the memory tier for the last time. Takes time in proportion to the keys.
    pub fn complete_items(&self, ticket: Ticket, purge: impl FnMut(&CacheKey, u64)) {
        for piece in ticket.0 {
            self.state.write().complete(piece);
        }
        self.forget(usize::MAX, purge);
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
        self.state.write().end(generation);
        self.forget(FORGOTTEN_AT_ONCE, purge);
    }

    /// How many rules on items are in memory.
    pub fn items(&self) -> usize {
        self.state.read().items.len()
    }

    /// Adds some rules; `None` when there are too many, and all of them became one on everything.
    fn add_piece(&self, keys: &[CacheKey], before_ms: u64) -> Option<Piece> {
        let mut state = self.state.write();
        if state.remembered + keys.len() > MOST_ITEM_RULES {
            self.all_before.raise(before_ms.max(state.highest_ms));
            let cleared = state.clear();
            self.any_items.store(false, Ordering::SeqCst);
            drop(state);
            // Frees much memory: not behind the lock.
            drop(cleared);
            return None;
        }
        let piece = state.add(keys, before_ms);
        self.any_items.store(true, Ordering::SeqCst);
        Some(piece)
    }

    /// Forgets complete rules that nothing can break any more, until `budget` keys are done.
    fn forget(&self, mut budget: usize, mut purge: impl FnMut(&CacheKey, u64)) {
        while budget > 0 {
            let ripe = self.state.write().ripe();
            let Some(ripe) = ripe else { return };
            // The rules stand until what they cover is purged. Nobody can bring it back meanwhile: every operation that
            // knew it has ended.
            ripe.rules.iter().for_each(|(key, before_ms)| purge(key, *before_ms));
            budget = budget.saturating_sub(ripe.piece.keys.len());
            let mut state = self.state.write();
            state.remove(&ripe);
            if state.items.is_empty() {
                self.any_items.store(false, Ordering::SeqCst);
            }
        }
    }
}

// === impl State ===

impl State {
    fn add(&mut self, keys: &[CacheKey], before_ms: u64) -> Piece {
        for key in keys {
            let rule = self.items.entry(*key);
            let rule = rule.or_insert(ItemRule { before_ms, pending: 0, release: 0 });
            rule.before_ms = rule.before_ms.max(before_ms);
            rule.pending += 1;
        }
        self.highest_ms = self.highest_ms.max(before_ms);
        self.remembered += keys.len();
        Piece { keys: keys.to_vec(), clears: self.clears }
    }

    fn complete(&mut self, piece: Piece) {
        if piece.clears != self.clears {
            return;
        }
        for key in &piece.keys {
            if let Some(rule) = self.items.get_mut(key) {
                rule.pending = rule.pending.saturating_sub(1);
                rule.release = self.generation;
            }
        }
        self.complete.push_back((self.generation, piece));
        self.generation += 1;
    }

    fn end(&mut self, generation: u64) {
        if let Some(count) = self.live.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&generation);
            }
        }
    }

    /// Takes the next complete piece that every operation it must outlive has ended for.
    fn ripe(&mut self) -> Option<Ripe> {
        let oldest = self.live.first_key_value().map_or(u64::MAX, |(generation, _)| *generation);
        let (generation, piece) =
            self.complete.pop_front_if(|(generation, _)| *generation < oldest)?;
        let spent = |key: &CacheKey| {
            let rule = self.items.get(key).filter(|rule| rule.is_spent(generation))?;
            Some((*key, rule.before_ms))
        };
        let rules = piece.keys.iter().filter_map(spent).collect();
        Some(Ripe { generation, piece, rules })
    }

    fn remove(&mut self, ripe: &Ripe) {
        if ripe.piece.clears != self.clears {
            return;
        }
        self.remembered -= ripe.piece.keys.len();
        for (key, _) in &ripe.rules {
            if self.items.get(key).is_some_and(|rule| rule.is_spent(ripe.generation)) {
                self.items.remove(key);
            }
        }
        if self.items.is_empty() {
            self.highest_ms = 0;
        }
    }

    /// Takes every rule on items away; what comes back is to be dropped.
    fn clear(&mut self) -> impl Sized + use<> {
        self.clears += 1;
        self.remembered = 0;
        self.highest_ms = 0;
        (take(&mut self.items), take(&mut self.complete))
    }
}

// === impl ItemRule ===

impl ItemRule {
    /// Whether the piece that was complete in `generation` is the last that needs it: a later invalidation of the same
    /// key keeps the rule for its own, later release.
    fn is_spent(&self, generation: u64) -> bool {
        self.pending == 0 && self.release <= generation
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
