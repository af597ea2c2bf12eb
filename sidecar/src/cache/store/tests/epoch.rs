//! A raised epoch on disk.

use std::fs;

use super::*;
use crate::cache::store::meta::Reading;

/// The epoch that the folder's meta file remembers.
fn remembered(folder: &Path) -> u64 {
    match Meta::read(&Folder::new(folder.to_owned())).unwrap() {
        Reading::Meta(meta) => meta.epoch,
        other => panic!("{other:?} is no meta file"),
    }
}

#[tokio::test]
async fn a_raised_epoch_is_on_disk_when_that_is_said_and_never_falls() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.rules.raise_epoch(7);
    opened.store.raise_epoch(7).await.unwrap();
    assert_eq!(remembered(dir.path()), 7);
    opened.store.raise_epoch(6).await.unwrap();
    assert_eq!(remembered(dir.path()), 7);
    assert!(opened.store.close(SOON).await);
    let opened = open(dir.path(), 8).await.healthy();
    assert_eq!(opened.rules.epoch(), 7);
}

#[tokio::test]
async fn an_epoch_that_cannot_be_written_switches_the_tier_off_and_takes_what_it_purges_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 8).await.healthy();
    opened.put(1, entry(1, 1, 8)).await;
    assert!(opened.store.flush(SOON).await);
    // A folder in the place of the file that is written first.
    fs::create_dir_all(Folder::new(dir.path().to_owned()).meta_new().join("x")).unwrap();
    opened.store.raise_epoch(7).await.unwrap();
    assert!(opened.message().contains("write the meta file"), "{}", opened.message());
    assert_eq!(Folder::new(dir.path().to_owned()).databases().unwrap(), Vec::<u64>::new());
}
