//! What embedded stores do to those who rely on them: damage after a kill, opens that take minutes, memory and disk that
//! grow without end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use embark_sidecar::pb::client::{EmbedRequest, Source};
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, difference, request, sources, until},
};

use super::SAME;

/// The folders of a cache's databases.
fn databases(options: &Options) -> Vec<PathBuf> {
    let inside = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // A folder for each space.
    let spaces = inside(options.data.join("cache/tiny"));
    let folders = spaces.flat_map(inside).filter(|path| path.is_dir());
    folders.filter(|path| path.join("conf").exists()).collect()
}

fn bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Deleted meanwhile.
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_left_by_a_killed_process_opens_again_with_what_was_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let texts: Vec<String> = (0..64).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut first = Vec::new();
    for life in 0..5 {
        let sidecar = Sidecar::start(&options).await;
        let results = sidecar.embed(&texts).await;
        if life == 0 {
            first = results;
            // The last one's vector is in the file, so what came before it is.
            let last: Vec<u8> = first[63].vector.iter().flat_map(|v| v.to_le_bytes()).collect();
            let is_there = |file: &PathBuf| {
                let bytes = fs::read(file.join("db")).unwrap_or_default();
                bytes.windows(64).any(|window| window == &last[..64])
            };
            until("they are written", async || databases(&options).iter().any(is_there)).await;
        } else {
            assert_eq!(sources(&results), [Source::HitDisk; 64], "life {life}");
            for (found, first) in results.iter().zip(&first) {
                assert!(difference(&found.vector, &first.vector) <= SAME, "life {life}");
            }
        }
        // New ones too, which the kill may lose.
        sidecar.embed(&[&format!("new in life {life}")]).await;
        sidecar.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_for_ever_to_open_is_given_up_and_holds_up_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    let before = sidecar.embed(&["a text"]).await;
    sidecar.stop().await;
    for database in databases(&options) {
        // An open for reading waits until somebody writes, which nobody does.
        let file = database.join("conf");
        fs::remove_file(&file).unwrap();
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    }
    let sidecar = Sidecar::start(&options).await;
    let after = sidecar.embed(&["a text"]).await;
    assert_eq!(sources(&after), [Source::Computed]);
    assert!(difference(&after[0].vector, &before[0].vector) <= SAME);
    let disk = async || sidecar.model_status("tiny").await["cache"]["disk"]["state"].clone();
    until("the disk tier is on, anew", async || disk().await == "healthy").await;
    let new = sidecar.embed(&["something new"]).await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    let found = sidecar.embed(&["something new"]).await;
    assert_eq!(sources(&found), [Source::HitDisk]);
    assert!(difference(&found[0].vector, &new[0].vector) <= SAME);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_disk_nor_memory_grow_with_all_that_was_ever_written() {
    const LIMIT: u64 = 64 << 20;
    /// What buffers may grow by once both databases have been full. A store that keeps a share of what was written keeps more.
    const GROWTH: u64 = 64 << 20;
    let folder = tempfile::tempdir().unwrap();
    // A vector of 16 KiB, so that few texts are many bytes.
    let manifest = Manifest::poisonous("tiny", folder.path(), (4096, 2))
        .with("/spec/cache/memory/sizeLimit", "4Mi")
        .with("/spec/cache/disk/sizeLimit", "64Mi");
    let options = Options::new(folder.path(), &manifest);
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["a first text"]).await;
    let (mut written, mut full) = (0, 0);
    while written < 4 * LIMIT {
        let texts: Vec<String> = (0..128).map(|n| format!("text {n} after {written}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let silent = EmbedRequest { omit_vectors: true, ..request(&texts) };
        let results = sidecar.call(silent).await.unwrap().results;
        assert!(results.iter().all(|result| result.error.is_none()));
        written += 128 * 4096 * 4;
        let on_disk = bytes(&options.data.join("cache"));
        assert!(on_disk <= LIMIT, "{on_disk} bytes on disk after {written}");
        if written <= LIMIT {
            full = sidecar.peak_memory();
        }
    }
    let grown = sidecar.peak_memory() - full;
    println!("{written} bytes were computed, memory grew by {grown} over {full}");
    assert!(grown <= GROWTH, "memory grew by {grown} bytes over {full}");
    let rotations = sidecar.metric("embark_cache_rotations_total", &[]).await;
    assert!(rotations > 0.5, "the disk never filled up, so nothing was tried");
    sidecar.stop().await;
}
