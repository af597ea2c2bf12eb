//! Two hundred random damages: a store opens soon, gives no wrong vector, and works on.

use tokio::time::Instant;

use super::*;

const SEED: u64 = 0x5eed_2024;
const DAMAGES: u64 = 200;
const ENTRIES: u64 = 1_500;
const DIMENSIONS: usize = 384;

/// Numbers that look random and are the same every time (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap()
    }
}

/// Every file under a folder but the lock, in a fixed order, larger ones more often.
fn files(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![];
    for item in fs::read_dir(path).unwrap().flatten() {
        if item.metadata().unwrap().is_dir() {
            found.extend(files(&item.path()));
        } else if item.file_name() != "LOCK" {
            let times = if item.file_name() == "db" { 6 } else { 1 };
            found.extend(std::iter::repeat_n(item.path(), times));
        }
    }
    found.sort();
    found
}

/// Does one damage; gives what it did.
fn damage(folder: &Path, dice: &mut Dice) -> String {
    let files = files(folder);
    let file = &files[dice.below(files.len())];
    let mut content = fs::read(file).unwrap();
    let length = content.len();
    let at = dice.below(length);
    let what = match dice.below(10) {
        0 => {
            fs::remove_file(file).unwrap();
            return format!("{} deleted", file.display());
        }
        1 | 2 => {
            content.truncate(at);
            format!("cut to {at}")
        }
        3..=5 => {
            let end = content.len().min(at + 4096);
            content[at.min(end)..end].fill(0);
            format!("4096 zeros at {at}")
        }
        _ => {
            let flips = 1 + dice.below(8);
            for _ in 0..flips.min(length) {
                let bit = dice.below(length * 8);
                content[bit / 8] ^= 1 << (bit % 8);
            }
            format!("{flips} bits flipped")
        }
    };
    fs::write(file, content).unwrap();
    format!("{} {what}", file.display())
}

/// A folder with two databases, closed in order; and a copy taken while it was in use.
async fn models(dir: &Path) -> [std::path::PathBuf; 2] {
    let (clean, used) = (dir.join("clean"), dir.join("used"));
    let opened = open(&clean, DIMENSIONS).await.healthy();
    for number in 0..ENTRIES / 2 {
        opened.put(number, entry(number, 5, DIMENSIONS)).await;
    }
    assert!(opened.store.close(SOON).await);
    // A second database, as after a rotation.
    fs::rename(clean.join("db-00000001"), dir.join("old")).unwrap();
    let opened = open(&clean, DIMENSIONS).await.healthy();
    for number in ENTRIES / 2..ENTRIES {
        opened.put(number, entry(number, 5, DIMENSIONS)).await;
    }
    assert!(opened.store.flush(SOON).await);
    copy(&clean, &used);
    assert!(opened.store.close(SOON).await);
    for folder in [&clean, &used] {
        fs::rename(folder.join("db-00000001"), folder.join("db-00000002")).unwrap();
        copy(&dir.join("old"), &folder.join("db-00000001"));
    }
    [clean, used]
}

/// How many of all entries are found; a wrong one ends the test.
fn count(opened: &Opened, what: &str) -> u64 {
    let keys: Vec<CacheKey> = (0..ENTRIES).map(key).collect();
    let mut found = 0;
    for (number, hit) in (0..).zip(block_on(opened.store.get(&keys))) {
        if let Some(hit) = hit {
            assert_eq!(hit.entry, entry(number, 5, DIMENSIONS), "{what}");
            found += 1;
        }
    }
    found
}

#[tokio::test]
async fn two_hundred_damages_lose_entries_and_nothing_else() {
    println!("seed {SEED:#x}");
    let dir = tempfile::tempdir().unwrap();
    let models = models(dir.path()).await;
    let (mut dice, mut kept, mut slowest, mut off) = (Dice(SEED), 0, Duration::ZERO, 0);
    let (mut longest, mut discarded) = (Duration::ZERO, 0);
    for round in 0..DAMAGES {
        let folder = dir.path().join("damaged");
        copy(&models[(round % 2) as usize], &folder);
        let damages: Vec<_> = (0..=dice.below(3)).map(|_| damage(&folder, &mut dice)).collect();
        let what = format!("round {round}: {}", damages.join(", "));
        let started = Instant::now();
        let opened = open(&folder, DIMENSIONS).await;
        slowest = slowest.max(started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: {:?}", started.elapsed());
        let working = Instant::now();
        count(&opened, &what);
        for number in 0..100 {
            opened.put(number, entry(number, 5, DIMENSIONS)).await;
        }
        assert!(opened.store.flush(SOON).await, "{what}");
        kept += count(&opened, &what);
        off += u64::from(opened.store.state() != DiskState::Healthy);
        if working.elapsed() > Duration::from_secs(1) {
            println!("{what}: {:?} at work", working.elapsed());
        }
        longest = longest.max(working.elapsed());
        assert!(opened.store.close(SOON).await, "{what}");
        discarded += opened.metrics.discarded_databases.get();
        drop(opened);
        fs::remove_dir_all(&folder).unwrap();
    }
    println!(
        "kept {:.1} % of entries, slowest open {slowest:?}, longest work {longest:?}, off {off} times, {discarded} databases given up",
        kept as f64 * 100.0 / (DAMAGES * ENTRIES) as f64
    );
    assert!(kept > DAMAGES * ENTRIES / 10, "nothing survives: {kept}");
}
