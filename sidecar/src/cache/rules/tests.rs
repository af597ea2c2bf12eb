//! Rules on items: how long they stand, and what lets them go.

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
    let ticket = rules.add_items(&[key(1)], 50);
    let between = rules.begin();
    rules.complete_items(ticket, |_, _| panic!("an operation is under way"));
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
    let _ticket = rules.add_items(&[key(1)], 50);
    let operation = rules.begin();
    rules.end(operation, |_, _| panic!("the disk tier does not hold it"));
    assert_eq!(before(&rules, 1), Some(50));
}

#[test]
fn a_second_rule_on_a_key_outlives_the_first() {
    let rules = Rules::default();
    let (first, second) = (rules.add_items(&[key(1)], 50), rules.add_items(&[key(1)], 40));
    rules.complete_items(first, |_, _| panic!("another is pending"));
    assert_eq!(before(&rules, 1), Some(50));
    rules.complete_items(second, |_, _| {});
    assert_eq!(before(&rules, 1), None);
}

#[test]
fn a_rule_that_comes_while_an_earlier_one_is_purged_stays() {
    let (rules, mut later) = (Rules::default(), None);
    let ticket = rules.add_items(&[key(1)], 50);
    rules.complete_items(ticket, |_, _| later = Some(rules.add_items(&[key(1)], 60)));
    assert_eq!(before(&rules, 1), Some(60));
    rules.complete_items(later.unwrap(), |_, _| {});
    assert_eq!((before(&rules, 1), rules.items()), (None, 0));
}

#[test]
fn the_rule_stands_and_the_lock_is_free_while_an_entry_is_purged() {
    let (rules, mut purged) = (Rules::default(), 0);
    let keys: Vec<_> = (0..1_000).map(key).collect();
    let operation = rules.begin();
    let ticket = rules.add_items(&keys, 50);
    assert!(ticket.0.iter().all(|piece| piece.keys.len() <= PIECE));
    rules.complete_items(ticket, |_, _| panic!("an operation is under way"));
    let mut purge = |key: &CacheKey, _| {
        assert!(rules.state.try_write().is_some(), "nobody could look up a key meanwhile");
        assert_eq!(rules.standing(key).invalidated_before_ms, Some(50));
        purged += 1;
    };
    rules.end(operation, &mut purge);
    while rules.items() > 0 {
        rules.end(rules.begin(), &mut purge);
    }
    assert_eq!(purged, 1_000);
}

#[test]
fn too_many_item_rules_become_one_on_everything() {
    let rules = Rules::default();
    let keys: Vec<_> = (0..MOST_ITEM_RULES as u64).map(key).collect();
    let ticket = rules.add_items(&keys, 70);
    assert_eq!(before(&rules, u64::MAX), None);
    let _none = rules.add_items(&[key(u64::MAX)], 60);
    assert_eq!(
        (rules.items(), before(&rules, 0), before(&rules, 7_777_777)),
        (0, Some(70), Some(70))
    );
    rules.complete_items(ticket, |_, _| panic!("its rules are gone"));
}

#[test]
fn an_invalidation_that_alone_has_too_many_items_covers_them_all() {
    let rules = Rules::default();
    let keys: Vec<_> = (0..=MOST_ITEM_RULES as u64).map(key).collect();
    let ticket = rules.add_items(&keys, 70);
    assert_eq!((rules.items(), before(&rules, 0)), (0, Some(70)));
    assert_eq!(before(&rules, MOST_ITEM_RULES as u64), Some(70));
    rules.complete_items(ticket, |_, _| panic!("its rules are gone"));
}

#[test]
fn an_invalidation_from_before_an_overflow_releases_nobody_elses_rule() {
    let rules = Rules::default();
    let early = rules.add_items(&[key(1)], 50);
    let keys: Vec<_> = (10..=10 + MOST_ITEM_RULES as u64).map(key).collect();
    let _none = rules.add_items(&keys, 60);
    assert_eq!((rules.items(), before(&rules, 1)), (0, Some(60)));
    let late = rules.add_items(&[key(1)], 70);
    rules.complete_items(early, |_, _| panic!("the disk tier does not hold the later rule"));
    assert_eq!(before(&rules, 1), Some(70));
    rules.complete_items(late, |_, _| {});
    assert_eq!((rules.items(), before(&rules, 1)), (0, Some(60)));
}

#[test]
fn one_item_invalidated_again_and_again_counts_each_time() {
    let rules = Rules::default();
    let operation = rules.begin();
    let keys = vec![key(1); PIECE];
    for round in 0..MOST_ITEM_RULES / PIECE {
        assert_eq!(before(&rules, 2), None, "after {round} rounds");
        rules.complete_items(rules.add_items(&keys, 50), |_, _| {});
    }
    rules.complete_items(rules.add_items(&keys, 50), |_, _| {});
    assert_eq!((before(&rules, 2), rules.state.read().complete.len()), (Some(50), 0));
    rules.end(operation, |_, _| panic!("its rules are gone"));
}

#[test]
fn what_is_forgotten_counts_no_more() {
    let rules = Rules::default();
    let keys: Vec<_> = (0..1_000).map(key).collect();
    for _ in 0..MOST_ITEM_RULES / 500 {
        rules.complete_items(rules.add_items(&keys, 50), |_, _| {});
    }
    assert_eq!((rules.state.read().remembered, before(&rules, 0)), (0, None));
}

#[test]
fn many_rules_are_forgotten_a_few_at_a_time() {
    let rules = Rules::default();
    let keys: Vec<_> = (0..1_000).map(key).collect();
    let operation = rules.begin();
    rules.complete_items(rules.add_items(&keys, 70), |_, _| {});
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
