//! Inputs that failed for good, as lookups see them.

use super::*;

const TTL: Duration = Duration::from_secs(10);

fn undecodable() -> Error {
    Error::new(ErrorKind::ImageUndecodable, "image: is no image")
}

fn remembering() -> CachePolicy {
    CachePolicy { negative_ttl: TTL, ..policy() }
}

/// A failure that a cache was told of, whose policy is as it was opened with.
async fn failed(bench: &Bench, policy: CachePolicy, error: &Error) -> Arc<Cache> {
    let cache = bench.open_at(&bench.folder(), policy).await;
    cache.fail(&cache.begin(), key(1), error);
    cache
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_counts_for_its_time_under_the_policy_of_now() {
    let bench = Bench::new();
    let cache = failed(&bench, remembering(), &undecodable()).await;
    let at = |policy: &CachePolicy, now_ms| cache.failure(policy, &key(1), now_ms);
    let began = bench.clock.now_ms();
    assert_eq!(at(&remembering(), began), Some((undecodable(), 0)));
    assert_eq!(at(&remembering(), began + 9_999), Some((undecodable(), 9_999)));
    assert_eq!(at(&remembering(), began + 10_000), None);
    assert_eq!(at(&policy(), began), None, "it is switched off");
    let shorter = CachePolicy { negative_ttl: Duration::from_secs(1), ..policy() };
    assert_eq!(at(&shorter, began + 1_000), None);
    let other = key(2);
    assert_eq!(cache.failure(&remembering(), &other, began), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_for_good_is_remembered_and_only_where_it_is_asked_for() {
    let bench = Bench::new();
    let cache = bench.open_at(&bench.folder(), remembering()).await;
    for (number, kind) in (0..).zip(ErrorKind::ALL) {
        cache.fail(&cache.begin(), key(number), &Error::new(*kind, "failed"));
        let known = cache.failure(&remembering(), &key(number), bench.clock.now_ms());
        assert_eq!(known.is_some(), kind.is_for_good(), "{kind:?}");
    }
    let bench = Bench::new();
    let cache = failed(&bench, policy(), &undecodable()).await;
    assert_eq!(cache.failure(&remembering(), &key(1), bench.clock.now_ms()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_forgotten_as_an_entry_is() {
    let bench = Bench::new();
    let known =
        |cache: &Cache| cache.failure(&remembering(), &key(1), bench.clock.now_ms()).is_some();
    let cache = failed(&bench, remembering(), &undecodable()).await;
    let under_way = cache.begin();
    let before_ms = bench.clock.now_ms();
    cache.invalidate_items(vec![key(1)], before_ms).await.unwrap();
    assert!(!known(&cache), "of one key");
    cache.fail(&under_way, key(1), &undecodable());
    assert!(!known(&cache), "nor does it come back by what was under way");
    drop(under_way);
    bench.clock.turn_to(before_ms + 1);
    cache.fail(&cache.begin(), key(1), &undecodable());
    assert!(known(&cache));
    cache.invalidate_all(before_ms + 1).await.unwrap();
    assert!(!known(&cache), "of all");
    bench.clock.turn_to(before_ms + 2);
    cache.fail(&cache.begin(), key(1), &undecodable());
    assert!(known(&cache));
    cache.raise_epoch(1).await.unwrap();
    assert!(!known(&cache), "of another epoch");
    cache.fail(&cache.begin(), key(1), &undecodable());
    assert!(known(&cache));
    fill(&cache, 1);
    assert!(!known(&cache), "what is there has not failed");
}
