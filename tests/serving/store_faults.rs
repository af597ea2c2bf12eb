//! Disks that cannot be written to, are full, damaged or taken away: the server serves right vectors all the same, and says
//! what is the matter with its cache.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use embark_crds::digest::SpaceId;
use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Mount, Random, Sidecar,
    sidecar::{Options, difference, sources, until},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::mounted::contract;

const TEXTS: [&str; 3] = ["a text", "another text", "the third"];
const AGAIN: &str = "the disk cache is on again";

/// What a server without a cache answers to [`TEXTS`].
async fn reference() -> &'static [Vec<f32>] {
    static REFERENCE: OnceCell<Vec<Vec<f32>>> = OnceCell::const_new();
    let compute = async || {
        let folder = folder();
        let manifest = Manifest::tiny("tiny").with("/spec/cache/mode", "Disabled");
        let sidecar = Sidecar::serve(folder.path(), &manifest).await;
        sidecar.embed(&TEXTS).await.into_iter().map(|result| result.vector).collect()
    };
    REFERENCE.get_or_init(compute).await
}

/// A folder that every user can reach.
fn folder() -> TempDir {
    let everybody = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(everybody).tempdir().unwrap()
}

fn options(folder: &Path) -> Options {
    Options::new(folder, &Manifest::tiny("tiny"))
}

fn cache(options: &Options) -> PathBuf {
    let space = SpaceId::of(&contract(&Manifest::tiny("tiny")).serving);
    options.data.join("cache/tiny").join(space.to_string())
}

/// The vectors are right; gives their sources.
async fn embed(sidecar: &Sidecar) -> Vec<Source> {
    let results = sidecar.embed(&TEXTS).await;
    for (result, right) in results.iter().zip(reference().await) {
        assert!(difference(&result.vector, right) <= 1e-5, "{:?}", result.source());
    }
    sources(&results)
}

async fn disk(sidecar: &Sidecar) -> Value {
    sidecar.status().await["models"][0]["cache"]["disk"].clone()
}

async fn healthy(sidecar: &Sidecar) -> bool {
    let (_, metrics) = sidecar.get("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("embark_cache_healthy{")).unwrap();
    line.ends_with(" 1")
}

/// It serves, from memory alone, and says why.
async fn assert_degraded(sidecar: &Sidecar, options: &Options, cause: &str) {
    embed(sidecar).await;
    assert_eq!(embed(sidecar).await, [Source::HitMemory; 3]);
    assert_eq!(sidecar.get("/ready").await.0, 200);
    let disk = disk(sidecar).await;
    assert_eq!(disk["state"], "degraded", "{disk}");
    let message = disk["message"].as_str().unwrap();
    let folder = format!("cache folder {}: ", cache(options).display());
    assert!(message.starts_with(&folder) && message.contains(cause), "{message}");
    assert!(!healthy(sidecar).await);
    assert!(sidecar.log().contains(cause), "the log says it too:\n{}", sidecar.log());
}

async fn assert_healthy(sidecar: &Sidecar) {
    let disk = disk(sidecar).await;
    assert_eq!(disk["state"], "healthy", "{disk}");
    assert!(healthy(sidecar).await);
}

/// What it embeds is there after a restart.
async fn assert_remembers(sidecar: Sidecar, options: &Options) {
    embed(&sidecar).await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(options).await;
    assert_healthy(&sidecar).await;
    assert_eq!(embed(&sidecar).await, [Source::HitDisk; 3]);
    sidecar.stop().await;
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_may_not_be_written_to_costs_the_disk_tier_alone() {
    let folder = folder();
    let options = options(folder.path()).as_nobody(folder.path());
    fs::create_dir(&options.data).unwrap();
    let sidecar = Sidecar::start(&options).await;
    assert_degraded(&sidecar, &options, "make the folder: Permission denied").await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_costs_the_disk_tier_until_it_can_be_written_to() {
    let folder = folder();
    let options = options(folder.path());
    let mount = Mount::tmpfs(&options.data, "size=32m");
    let sidecar = Sidecar::start(&options).await;
    embed(&sidecar).await;
    sidecar.stop().await;
    until("the folder is read-only", async || mount.remount("ro").is_ok()).await;
    let sidecar = Sidecar::start(&options).await;
    assert_degraded(&sidecar, &options, "Read-only file system").await;
    mount.remount("rw").unwrap();
    sidecar.wait_for_line(AGAIN).await;
    assert_healthy(&sidecar).await;
    assert_remembers(sidecar, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_folders_place_costs_the_disk_tier_until_it_is_gone() {
    let folder = folder();
    let options = options(folder.path());
    fs::write(&options.data, "a file").unwrap();
    let sidecar = Sidecar::start(&options).await;
    assert_degraded(&sidecar, &options, "Not a directory").await;
    fs::remove_file(&options.data).unwrap();
    sidecar.wait_for_line(AGAIN).await;
    // What is in memory alone is not written; what is new is.
    let new = sidecar.embed(&["something new"]).await;
    assert_eq!(sources(&new), [Source::Computed]);
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["something new"]).await), [Source::HitDisk]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_version_is_begun_anew() {
    let folder = folder();
    let options = options(folder.path());
    let sidecar = Sidecar::start(&options).await;
    embed(&sidecar).await;
    sidecar.stop().await;
    let file = cache(&options).join("meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    meta["meta"]["format"] = json!(7);
    fs::write(&file, meta.to_string()).unwrap();
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(embed(&sidecar).await, [Source::Computed; 3]);
    assert_healthy(&sidecar).await;
    let said = format!(
        "cache folder {}: what was cached there is given up: its format version is 7, this program's is",
        cache(&options).display()
    );
    assert!(sidecar.log().contains(&said), "{}", sidecar.log());
    assert_remembers(sidecar, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_full_of_noise_is_begun_anew() {
    let folder = folder();
    let options = options(folder.path());
    let sidecar = Sidecar::start(&options).await;
    embed(&sidecar).await;
    sidecar.stop().await;
    let mut random = Random::new(7);
    let files = files(&cache(&options));
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let length = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
        fs::write(&file, random.bytes(length)).unwrap();
    }
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(embed(&sidecar).await, [Source::Computed; 3]);
    assert_healthy(&sidecar).await;
    assert!(sidecar.log().contains("what was cached there is given up"), "{}", sidecar.log());
    assert_remembers(sidecar, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_the_disk_tier_until_space_returns() {
    let folder = folder();
    let options = options(folder.path());
    let mount = Mount::ext4(&options.data, 32);
    let sidecar = Sidecar::start(&options).await;
    let hog = mount.path().join("hog");
    let mut fill = fs::File::create(&hog).unwrap();
    std::io::Write::write_all(&mut fill, &vec![1; 20 << 20]).unwrap();
    fill.sync_all().unwrap();
    let mut written = 0;
    while disk(&sidecar).await["state"] == "healthy" {
        assert!(written < 200_000, "the disk does not fill");
        let texts: Vec<String> = (written..written + 512).map(|n| format!("filler {n}")).collect();
        sidecar.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        written += 512;
    }
    assert_degraded(&sidecar, &options, "No space left on device").await;
    fs::remove_file(&hog).unwrap();
    sidecar.wait_for_line(AGAIN).await;
    assert_healthy(&sidecar).await;
    sidecar.embed(&["something new"]).await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["something new"]).await), [Source::HitDisk]);
    embed(&sidecar).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_another_process_has_is_left_to_it() {
    let folder = folder();
    let options = options(folder.path());
    let first = Sidecar::start(&options).await;
    let second = Sidecar::start(&options).await;
    assert_degraded(&second, &options, "another process holds its lock file").await;
    assert_healthy(&first).await;
    assert_eq!(embed(&first).await, [Source::Computed; 3]);
    first.stop().await;
    second.wait_for_line(AGAIN).await;
    assert_healthy(&second).await;
    second.stop().await;
    let third = Sidecar::start(&options).await;
    assert_eq!(embed(&third).await, [Source::HitDisk; 3]);
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_deleted_while_in_use_is_noticed_and_made_anew() {
    let folder = folder();
    let options = options(folder.path());
    let sidecar = Sidecar::start(&options).await;
    embed(&sidecar).await;
    fs::remove_dir_all(&options.data).unwrap();
    // As long as this stands, it cannot be made anew.
    fs::write(&options.data, "a file").unwrap();
    let mut number = 0;
    until("the loss is noticed", async || {
        number += 1;
        sidecar.embed(&[&format!("new text {number}")]).await;
        disk(&sidecar).await["state"] == "degraded"
    })
    .await;
    assert!(sidecar.log().contains("deleted from outside"), "{}", sidecar.log());
    let cause = disk(&sidecar).await["message"].as_str().unwrap().to_owned();
    let cause = cause.split("alone: ").last().unwrap();
    assert_degraded(&sidecar, &options, cause).await;
    fs::remove_file(&options.data).unwrap();
    sidecar.wait_for_line(AGAIN).await;
    assert_healthy(&sidecar).await;
    sidecar.embed(&["something new"]).await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["something new"]).await), [Source::HitDisk]);
    sidecar.stop().await;
}
