//! The disk tier against rules, rotation, limits, damage and disks that fail.

mod damage;
mod disks;
mod epoch;
mod waits;

use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{
    chain,
    folder::Folder,
    handle::Store,
    meta::Meta,
    tier::{DiskState, Found, StoreConfig},
};
use crate::{
    cache::{
        block_on::block_on,
        entry::{Entry, Record},
        metrics::CacheMetrics,
        rules::Rules,
    },
    embedding::Vector,
    key::CacheKey,
};

const SOON: Duration = Duration::from_secs(20);
const LIMIT: u64 = 64 << 20;

/// A store with its parts at hand.
struct Opened {
    store: Store,
    rules: Arc<Rules>,
    metrics: CacheMetrics,
}

async fn open(folder: &Path, dimensions: usize) -> Opened {
    let (rules, metrics) = (Arc::new(Rules::default()), CacheMetrics::default());
    let config = StoreConfig { folder: folder.to_owned(), disk_bytes: LIMIT, dimensions };
    let store = Store::open(config, rules.clone(), metrics.clone()).await;
    Opened { store, rules, metrics }
}

/// What is under a key, without a task's turn.
fn look(store: &Store, number: u64) -> Option<Found> {
    block_on(store.get(&[key(number)])).remove(0)
}

impl Opened {
    fn healthy(self) -> Self {
        assert_eq!(self.store.state(), DiskState::Healthy);
        self
    }

    fn message(&self) -> String {
        match self.store.state() {
            DiskState::Degraded { message } => message,
            other => panic!("the tier is {other:?}"),
        }
    }

    /// Puts an entry, waiting for room in the queue.
    async fn put(&self, number: u64, entry: Entry) {
        let dropped = self.metrics.dropped_writes.get();
        self.store.put(key(number), entry.clone());
        if self.metrics.dropped_writes.get() > dropped {
            assert!(self.store.flush(SOON).await);
            self.store.put(key(number), entry);
        }
    }

    fn created(&self, number: u64) -> Option<u64> {
        look(&self.store, number).map(|found| found.entry.created_ms)
    }

    /// Writes until young has become old.
    async fn rotate(&self, filler: &mut u64, dimensions: usize) {
        let before = self.metrics.rotations.get();
        while self.metrics.rotations.get() == before {
            for _ in 0..64 {
                *filler += 1;
                self.put(*filler, entry(*filler, 9, dimensions)).await;
            }
            assert!(self.store.flush(SOON).await);
        }
    }
}

fn key(number: u64) -> CacheKey {
    CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// The one right entry of a number, so that a wrong vector is known as such.
fn entry(number: u64, created_ms: u64, dimensions: usize) -> Entry {
    let values: Vec<f32> = (0..dimensions).map(|i| number as f32 + i as f32).collect();
    Entry {
        vector: Vector::from_values(&values),
        created_ms,
        epoch: 0,
        tokens: 1,
        chunks: 0,
        truncated: false,
        unknown_category: false,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// Bytes of every file under a folder, counted apart from the code under test.
fn bytes(path: &Path) -> u64 {
    let Ok(items) = fs::read_dir(path) else { return 0 };
    items
        .flatten()
        .map(|item| match item.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes(&item.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test]
async fn a_tombstone_in_young_hides_what_is_in_old() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2048).await.healthy();
    let mut filler = 1 << 40;
    opened.put(1, entry(1, 5, 2048)).await;
    opened.put(2, entry(2, 5, 2048)).await;
    opened.rotate(&mut filler, 2048).await;
    assert!(look(&opened.store, 1).unwrap().in_old);
    opened.store.forget(vec![key(1)], 5).await.unwrap();
    assert_eq!((opened.created(1), opened.created(2)), (None, Some(5)));
    // Neither a late write nor a late promotion lifts it; a later entry does.
    opened.store.promote(key(1), entry(1, 5, 2048));
    opened.put(1, entry(1, 4, 2048)).await;
    opened.rules.raise_items_until(5);
    opened.put(1, entry(1, 5, 2048)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), None);
    opened.put(1, entry(1, 6, 2048)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), Some(6));
}

#[tokio::test]
async fn a_tombstone_that_became_old_still_refuses_late_writes() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2048).await.healthy();
    opened.rules.raise_items_until(5);
    opened.store.forget(vec![key(1)], 5).await.unwrap();
    opened.rotate(&mut (1 << 40), 2048).await;
    opened.put(1, entry(1, 5, 2048)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), None);
}

#[tokio::test]
async fn a_hit_in_old_is_copied_to_young_and_outlives_the_next_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2048).await.healthy();
    let mut filler = 1 << 40;
    opened.put(1, entry(1, 5, 2048)).await;
    opened.put(2, entry(2, 5, 2048)).await;
    opened.rotate(&mut filler, 2048).await;
    let found = look(&opened.store, 1).unwrap();
    assert!(found.in_old);
    opened.store.promote(key(1), found.entry);
    opened.rotate(&mut filler, 2048).await;
    assert_eq!((opened.created(1), opened.created(2)), (Some(5), None));
}

#[tokio::test]
async fn a_bad_record_is_a_miss_and_is_removed_from_both_databases() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2048).await.healthy();
    opened.put(1, entry(1, 5, 2048)).await;
    opened.rotate(&mut (1 << 40), 2048).await;
    let (_, pair) = opened.store.shared.published.read().clone();
    let mut record = Record::Entry(entry(1, 6, 2048)).encode(&key(1));
    record[100] ^= 1;
    pair.young.as_ref().unwrap().insert(&key(1), record).unwrap();
    assert_eq!(opened.created(1), None);
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.metrics.bad_records.get(), 1);
    assert!(pair.databases().all(|database| database.get(&key(1)).unwrap().is_none()));
    assert_eq!((opened.created(1), opened.metrics.bad_records.get()), (None, 1));
}

#[tokio::test]
async fn when_young_is_lost_what_its_tombstones_covered_in_old_stays_covered() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2048).await.healthy();
    opened.put(1, entry(1, 5, 2048)).await;
    opened.put(2, entry(2, 7, 2048)).await;
    opened.rotate(&mut (1 << 40), 2048).await;
    opened.store.forget(vec![key(1)], 6).await.unwrap();
    assert!(opened.store.close(SOON).await);
    let folder = Folder::new(dir.path().to_owned());
    let young = *folder.databases().unwrap().last().unwrap();
    fs::write(folder.database(young).join("db"), vec![0xff; 2 << 20]).unwrap();
    fs::write(folder.database(young).join("conf"), b"not what sled wrote").unwrap();
    let opened = open(dir.path(), 2048).await.healthy();
    assert_eq!(opened.metrics.discarded_databases.get(), 1);
    let standing = opened.rules.standing(&key(1));
    assert_eq!((standing.invalidated_before_ms, opened.created(2)), (Some(6), Some(7)));
}

/// Writes `total` bytes of vectors, counting the folder after every few; gives the writes.
async fn churn(opened: &Opened, folder: &Path, dimensions: usize, total: u64) -> u64 {
    let started = tokio::time::Instant::now();
    let (vector, every) = (dimensions as u64 * 4, (64 / (dimensions as u64 / 256).max(1)).max(1));
    let (mut peak, mut number) = (0, 0);
    while number * vector < total {
        number += 1;
        opened.put(number, entry(number, 5, dimensions)).await;
        if number % every == 0 {
            peak = peak.max(bytes(folder));
            assert!(peak <= LIMIT, "{peak} bytes after {number} writes of {vector}");
        }
    }
    assert!(opened.store.flush(SOON).await);
    let (percent, rotations) = (peak as f64 * 100.0 / LIMIT as f64, opened.metrics.rotations.get());
    println!(
        "{number} vectors of {dimensions}: peak {percent:.1} % of the limit, {rotations} rotations, {:?}",
        started.elapsed()
    );
    assert_eq!(opened.store.state(), DiskState::Healthy);
    assert_eq!(opened.created(number), Some(5));
    number
}

#[tokio::test]
async fn the_limit_is_never_passed_in_a_churn_of_ten_times_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 4096).await.healthy();
    churn(&opened, dir.path(), 4096, 10 * LIMIT).await;
    assert!(opened.metrics.rotations.get() >= 10);
}

#[tokio::test]
async fn the_limit_is_never_passed_with_vectors_of_any_length() {
    for dimensions in [128, 384, 1536, 16_384] {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path(), dimensions).await.healthy();
        churn(&opened, dir.path(), dimensions, LIMIT * 5 / 4).await;
        assert!(opened.metrics.rotations.get() >= 1);
    }
}

#[tokio::test]
async fn a_store_of_another_format_begins_empty() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.close(SOON).await);
    let folder = Folder::new(dir.path().to_owned());
    fs::write(folder.meta(), r#"{"meta": {"format": 9}, "checksum": ""}"#).unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    assert_eq!(opened.created(1), None);
    opened.put(1, entry(1, 6, 8)).await;
    assert!(opened.store.close(SOON).await);
    assert_eq!(open(dir.path(), 8).await.healthy().created(1), Some(6));
}

#[tokio::test]
async fn a_store_whose_rules_are_lost_begins_empty() {
    for broken in [None, Some("{}"), Some("")] {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path(), 8).await.healthy();
        opened.put(1, entry(1, 5, 8)).await;
        assert!(opened.store.close(SOON).await);
        let meta = Folder::new(dir.path().to_owned()).meta();
        match broken {
            None => fs::remove_file(meta).unwrap(),
            Some(text) => fs::write(meta, text).unwrap(),
        }
        assert_eq!(open(dir.path(), 8).await.healthy().created(1), None);
    }
}

#[tokio::test]
async fn a_store_whose_opening_did_not_end_is_deleted_unopened() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.close(SOON).await);
    let folder = Folder::new(dir.path().to_owned());
    let before = folder.databases().unwrap();
    folder.set_marker().unwrap();
    fs::create_dir_all(dir.path().join("trash-00000009-0/blobs")).unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    assert_eq!((opened.created(1), folder.has_marker()), (None, false));
    assert!(folder.databases().unwrap().iter().all(|number| !before.contains(number)));
    assert!(!dir.path().join("trash-00000009-0").exists());
}

#[tokio::test]
async fn a_folder_that_another_process_holds_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), 8).await.healthy();
    first.put(1, entry(1, 5, 8)).await;
    assert!(first.store.flush(SOON).await);
    let second = open(dir.path(), 8).await;
    assert!(second.message().contains("another process holds"), "{}", second.message());
    assert_eq!(second.created(1), None);
    let refused = chain(&second.store.forget_all(9).await.unwrap_err());
    assert!(refused.contains("another process holds"), "{refused}");
    assert_eq!(first.created(1), Some(5));
    drop(second);
    assert_eq!(first.created(1), Some(5));
}

#[tokio::test]
async fn a_meta_file_is_clean_only_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned());
    let clean = |folder: &Folder| match Meta::read(folder).unwrap() {
        super::meta::Reading::Meta(meta) => meta.clean,
        other => panic!("{other:?}"),
    };
    let opened = open(dir.path(), 8).await.healthy();
    assert!(!clean(&folder));
    assert!(opened.store.close(SOON).await);
    assert!(clean(&folder));
}

#[tokio::test]
async fn a_database_found_damaged_while_in_use_is_replaced_once() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.flush(SOON).await);
    let (_, pair) = opened.store.shared.published.read().clone();
    pair.young.as_ref().unwrap().broken.store(true, std::sync::atomic::Ordering::SeqCst);
    drop(pair);
    for _ in 0..2_000 {
        assert_eq!(opened.created(1), None);
    }
    opened.store.forget(vec![key(2)], 3).await.unwrap();
    assert_eq!(opened.metrics.discarded_databases.get(), 1);
    opened.put(1, entry(1, 6, 8)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!((opened.created(1), opened.store.state()), (Some(6), DiskState::Healthy));
}

#[tokio::test]
async fn a_database_whose_opening_hangs_is_put_aside_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.close(SOON).await);
    let folder = Folder::new(dir.path().to_owned());
    let before = folder.databases().unwrap();
    let file = folder.database(before[0]).join("conf");
    fs::remove_file(&file).unwrap();
    // Reading a pipe that nobody writes to never ends.
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    let started = tokio::time::Instant::now();
    let opened = open(dir.path(), 8).await.healthy();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(!folder.databases().unwrap().contains(&before[0]));
    opened.put(1, entry(1, 6, 8)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), Some(6));
}
