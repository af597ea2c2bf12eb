//! Disks that are full, not writable, or no folders at all. These mount file systems, so they need root.

use std::{path::PathBuf, process::Command};

use tokio::time::{Instant, interval};

use super::*;

/// A file system that goes away with the value.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: PathBuf, options: &str) -> Self {
        Mount::of(path, &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    fn of(path: PathBuf, arguments: &[&str]) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mount = Mount(path);
        if let Err(error) = mount.mount(arguments) {
            panic!("this test must be run as root, to mount: {error}");
        }
        mount
    }

    /// Changes its options; not before the files that are still being closed are.
    async fn remount(&self, options: &str) {
        let (started, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
        while let Err(error) = self.mount(&["-o", &format!("remount,{options}")]) {
            assert!(started.elapsed() < SOON, "{error}");
            ticks.tick().await;
        }
    }

    fn mount(&self, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("mount").args(arguments).arg(&self.0).output();
        let output = output.map_err(|error| error.to_string())?;
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or_else(error)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Waits until the store is on (or off).
async fn until(opened: &Opened, on: bool) {
    let started = Instant::now();
    let mut ticks = interval(Duration::from_millis(20));
    while (opened.store.state() == DiskState::Healthy) != on {
        assert!(started.elapsed() < SOON, "still {:?}", opened.store.state());
        ticks.tick().await;
    }
}

#[tokio::test]
async fn a_folder_that_is_a_file_switches_the_tier_off() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    fs::write(&folder, "a file").unwrap();
    let opened = open(&folder, 8).await;
    let message = opened.message();
    assert!(message.contains(&folder.display().to_string()), "{message}");
    assert!(message.contains("make the folder"), "{message}");
    opened.store.put(key(1), entry(1, 5, 8));
    assert!(opened.store.flush(SOON).await);
    assert_eq!((opened.created(1), opened.metrics.dropped_writes.get()), (None, 1));
    // Nothing is there that a rule could fail to cover.
    opened.store.forget_all(9).await.unwrap();
    fs::remove_file(&folder).unwrap();
    until(&opened, true).await;
    opened.put(1, entry(1, 10, 8)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), Some(10));
}

#[tokio::test]
async fn a_folder_that_is_deleted_while_open_is_noticed_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let opened = open(&folder, 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.flush(SOON).await);
    fs::remove_dir_all(&folder).unwrap();
    opened.put(2, entry(2, 5, 8)).await;
    assert!(opened.store.flush(SOON).await);
    let message = opened.message();
    assert!(message.contains(&folder.display().to_string()), "{message}");
    assert!(message.contains("deleted from outside"), "{message}");
    until(&opened, true).await;
    assert_eq!(opened.created(1), None);
    opened.put(1, entry(1, 6, 8)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), Some(6));
    assert!(folder.join("meta.json").is_file());
}

#[tokio::test]
async fn a_database_that_is_deleted_while_open_takes_the_other_along() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let opened = open(&folder, 2048).await.healthy();
    let mut filler = 1_000;
    opened.put(1, entry(1, 5, 2048)).await;
    opened.rotate(&mut filler, 2048).await;
    let young = Folder::new(folder.clone()).databases().unwrap().pop().unwrap();
    fs::remove_dir_all(Folder::new(folder).database(young)).unwrap();
    opened.put(2, entry(2, 5, 2048)).await;
    assert!(opened.store.flush(SOON).await);
    assert!(opened.message().contains("deleted from outside"), "{}", opened.message());
    until(&opened, true).await;
    // A tombstone of it may have been in the deleted one.
    assert_eq!(opened.created(1), None);
}

#[tokio::test]
async fn a_read_only_folder_switches_the_tier_off_and_rules_do_not_last() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(dir.path().join("disk"), "size=32m");
    let folder = mount.0.join("model");
    let opened = open(&folder, 8).await.healthy();
    opened.put(1, entry(1, 5, 8)).await;
    assert!(opened.store.close(SOON).await);
    drop(opened);
    mount.remount("ro").await;
    let opened = open(&folder, 8).await;
    assert!(opened.message().contains("Read-only file system"), "{}", opened.message());
    let refused = opened.store.forget_all(5).await.map_err(|error| chain(&error)).unwrap_err();
    assert!(refused.contains("Read-only file system"), "{refused}");
    let refused =
        opened.store.forget(vec![key(1)], 5).await.map_err(|error| chain(&error)).unwrap_err();
    assert!(refused.contains("Read-only file system"), "{refused}");
    mount.remount("rw").await;
    until(&opened, true).await;
    assert_eq!(opened.created(1), None, "what a lost rule covers is deleted before it is opened");
}

#[tokio::test]
async fn a_full_disk_switches_the_tier_off_until_space_returns() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(dir.path().join("disk"), "size=24m");
    let folder = mount.0.join("model");
    let opened = open(&folder, 2048).await.healthy();
    let hog = mount.0.join("hog");
    fs::write(&hog, vec![1; 16 << 20]).unwrap();
    let mut number = 0;
    while opened.store.state() == DiskState::Healthy {
        number += 1;
        assert!(number < 50_000, "the disk does not fill");
        opened.put(number, entry(number, 5, 2048)).await;
    }
    let message = opened.message();
    assert!(message.contains(&folder.display().to_string()), "{message}");
    assert!(message.contains("No space left on device"), "{message}");
    assert_eq!(opened.created(number), None);
    opened.store.forget(vec![key(1)], 5).await.unwrap();
    fs::remove_file(&hog).unwrap();
    until(&opened, true).await;
    assert_eq!(opened.created(1), None);
    opened.put(1, entry(1, 6, 2048)).await;
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(1), Some(6));
    assert!(opened.metrics.disk_errors.get() > 0);
}

#[tokio::test]
async fn a_disk_that_fails_while_in_use_switches_the_tier_off() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output().unwrap();
    assert!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
    let mount = Mount::of(dir.path().join("disk"), &["-o", "loop", &image.display().to_string()]);
    let folder = mount.0.join("model");
    let opened = open(&folder, 2048).await.healthy();
    for number in 0..200 {
        opened.put(number, entry(number, 5, 2048)).await;
    }
    assert!(opened.store.flush(SOON).await);
    assert_eq!(opened.created(3), Some(5));
    // What the kernel does to a failing disk: from now on every write fails.
    mount.remount("abort").await;
    opened.put(1_000, entry(1_000, 5, 2048)).await;
    assert!(opened.store.flush(SOON).await);
    assert!(opened.message().contains(&folder.display().to_string()), "{}", opened.message());
    assert_eq!(opened.created(3), None);
    let refused = opened.store.forget(vec![key(3)], 5).await;
    assert!(refused.is_err(), "neither written nor deleted, yet {refused:?}");
}
