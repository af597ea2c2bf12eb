//! Who waits for the disk tier, and with what: callers, threads and tasks.

use std::sync::mpsc::{Sender, channel};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::interval;

use super::*;
use crate::cache::store::{
    StoreError,
    control::Control,
    readers::{Readers, tests::all_hang},
};

const TICK: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_lookup_while_the_disk_hangs_is_a_miss_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!((opened.created(1), opened.metrics.late_reads.get()), (Some(5), 0));
    // What a disk that hangs does to its readers.
    opened.store.readers = Arc::new(Readers::new(TICK));
    let hanging = all_hang(&opened.store.readers);
    assert_eq!((opened.created(1), opened.metrics.late_reads.get()), (None, 1));
    assert_eq!(opened.store.state(), DiskState::Healthy);
    drop(hanging);
    let (started, mut ticks) = (tokio::time::Instant::now(), interval(TICK));
    while opened.created(1).is_none() {
        assert!(started.elapsed() < SOON, "the readers do not go on");
        ticks.tick().await;
    }
}

/// Keeps the writer from publishing, until what it gives is dropped.
fn hold_up(store: &Store) -> Sender<()> {
    let (shared, (release, held), (begun, is_begun)) = (store.shared.clone(), channel(), channel());
    std::thread::spawn(move || {
        let published = shared.published.read();
        begun.send(()).unwrap();
        let _ = held.recv();
        drop(published);
    });
    is_begun.recv().unwrap();
    let error = StoreError::Locked;
    store.shared.queue.command(Control::Failed { opening: store.shared.opening(), error });
    release
}

#[test]
fn rules_that_wait_for_the_writer_hold_no_thread_that_lookups_need() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let opened = open(dir.path(), 8).await.healthy();
        let release = hold_up(&opened.store);
        let mut rules: FuturesUnordered<_> =
            (0..600).map(|number| opened.store.forget(vec![key(number)], 5)).collect();
        assert!(rules.next().now_or_never().is_none());
        let other = tokio::task::spawn_blocking(|| 7);
        assert_eq!(tokio::time::timeout(SOON, other).await.unwrap().unwrap(), 7);
        drop(release);
        assert!(rules.all(async |written| written.is_ok()).await);
    });
}

#[tokio::test]
async fn a_closed_store_leaves_no_thread_and_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), Some(5));
    let shared = Arc::downgrade(&opened.store.shared);
    assert!(opened.store.close(SOON).await && opened.store.close(SOON).await);
    drop(opened);
    // Each would hold it: the writer, a reader, the task that opens again.
    let (started, mut ticks) = (tokio::time::Instant::now(), interval(TICK));
    while shared.strong_count() > 0 {
        assert!(started.elapsed() < SOON, "{} owners are left", shared.strong_count());
        ticks.tick().await;
    }
}
