//! Processes that are killed while they write, and caches that are damaged while nobody looks: the next start is quick,
//! serves, and never gives a vector that differs from a fresh one.
//!
//! `EMBARK_TEST_LONG=1` makes it twenty times as many rounds.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embark_sidecar::pb::client::{ItemResult, Source};
use embark_tests::{
    Manifest, Random, Sidecar, long,
    sidecar::{Embeddings, Options, difference, request, sources},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// How long a start may take, whatever a kill or damage left behind. Each run prints its slowest.
const START_LIMIT: Duration = Duration::from_secs(5);
/// The same on a machine that is busy with other tests: what fails a run.
const START_LIMIT_BUSY: Duration = Duration::from_secs(30);
/// What a vector may differ from a fresh one.
const TOLERANCE: f32 = 1e-5;
const DISK_LIMIT: u64 = 64 << 20;
const TEXTS: usize = 32_768;
/// Callers who have a call under way at every moment, so also at that of the kill.
const TASKS: usize = 8;
const BATCH: usize = 32;
/// How many texts a round adds to those that are old.
const ADDED: usize = 512;

/// Every text, and its vector from a process that remembers nothing.
struct Reference {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

/// What a round found.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    from_disk: usize,
    computed: usize,
    starts: usize,
    /// Starts that took longer than they may.
    slow: usize,
    slowest: Duration,
}

// === impl Reference ===

impl Reference {
    async fn new(folder: &Path) -> Arc<Self> {
        let texts: Vec<String> = (0..TEXTS).map(|number| format!("text number {number}")).collect();
        let manifest = Manifest::tiny("reference").with("/spec/cache/mode", "Disabled");
        let sidecar = Sidecar::serve(folder, &manifest).await;
        let mut vectors = Vec::new();
        for batch in texts.chunks(512) {
            let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
            vectors.extend(sidecar.embed(&batch).await.into_iter().map(|result| result.vector));
        }
        sidecar.stop().await;
        Arc::new(Reference { texts, vectors })
    }

    fn batch(&self, numbers: &[usize]) -> Vec<&str> {
        numbers.iter().map(|&number| self.texts[number].as_str()).collect()
    }

    fn check(&self, numbers: &[usize], results: &[ItemResult]) {
        assert_eq!(results.len(), numbers.len());
        for (&number, result) in numbers.iter().zip(results) {
            let off = difference(&result.vector, &self.vectors[number]);
            let (text, source) = (&self.texts[number], result.source());
            assert!(off <= TOLERANCE, "{text:?} from {source:?} is off by {off}");
        }
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, other: Tally) {
        self.from_disk += other.from_disk;
        self.computed += other.computed;
        self.starts += other.starts;
        self.slow += other.slow;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn count(&mut self, results: &[ItemResult]) {
        for source in sources(results) {
            self.from_disk += usize::from(source == Source::HitDisk);
            self.computed += usize::from(source == Source::Computed);
        }
    }
}

// === free functions ===

fn rounds(number: usize) -> usize {
    number * if long::is_long() { 20 } else { 1 }
}

/// A model whose memory is so small that it hardly answers, so that the disk does.
fn options(folder: &Path) -> Options {
    let manifest = Manifest::tiny("killed")
        .with("/spec/cache/memory/sizeLimit", "4Mi")
        .with("/spec/cache/disk/sizeLimit", "64Mi");
    Options::new(folder, &manifest)
}

async fn start(options: &Options, tally: &mut Tally) -> Sidecar {
    let started = Instant::now();
    let sidecar = Sidecar::start(options).await;
    let took = started.elapsed();
    assert!(took <= START_LIMIT_BUSY, "the start took {took:?}:\n{}", sidecar.log());
    tally.starts += 1;
    tally.slow += usize::from(took > START_LIMIT);
    tally.slowest = tally.slowest.max(took);
    sidecar
}

/// Half old texts, half new ones, when the first `old` were asked for before.
fn mix(random: &mut Random, old: usize) -> Vec<usize> {
    let mut pick = || match random.below(2) {
        0 => random.index(old.clamp(1, TEXTS)),
        _ => (old + random.index(2 * ADDED)) % TEXTS,
    };
    (0..BATCH).map(|_| pick()).collect()
}

/// Embeds batches until the process is killed; before that, every call must be answered, and rightly.
async fn embed_until_killed(
    mut client: Embeddings,
    reference: Arc<Reference>,
    (mut random, old): (Random, usize),
    (replies, killed): (watch::Sender<u64>, watch::Receiver<bool>),
) -> Tally {
    let mut tally = Tally::default();
    loop {
        let numbers = mix(&mut random, old);
        match client.embed(request(&reference.batch(&numbers))).await {
            Ok(reply) => {
                let results = reply.into_inner().results;
                reference.check(&numbers, &results);
                tally.count(&results);
                replies.send_modify(|replies| *replies += 1);
            }
            Err(_) if *killed.borrow() => return tally,
            Err(status) => panic!("refused to serve: {status}"),
        }
    }
}

/// One life: starts, embeds from several tasks, and is killed at some reply.
async fn live_and_die(
    options: &Options,
    reference: &Arc<Reference>,
    (random, old): (&mut Random, usize),
) -> Tally {
    let mut total = Tally::default();
    let sidecar = start(options, &mut total).await;
    let replies = watch::Sender::new(0);
    let killed = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let client = sidecar.embeddings().await;
        let signals = (replies.clone(), killed.subscribe());
        let mix = (Random::new(random.number()), old);
        tasks.spawn(embed_until_killed(client, Arc::clone(reference), mix, signals));
    }
    let last = random.below(120);
    let mut seen = replies.subscribe();
    tokio::select! {
        _ = seen.wait_for(|replies| *replies >= last) => {}
        ended = tasks.join_next() => panic!("a task ended before the kill: {ended:?}"),
    }
    killed.send_replace(true);
    sidecar.kill().await;
    while let Some(tally) = tasks.join_next().await {
        total.add(tally.expect("no task panics"));
    }
    total
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(self::files(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    files
}

fn bytes(folder: &Path) -> u64 {
    files(folder).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// Damages a file: bits flipped, a part zeroed, cut short, or gone.
fn damage(file: &Path, random: &mut Random) -> String {
    let length = fs::metadata(file).unwrap().len();
    let open = || fs::File::options().read(true).write(true).open(file).unwrap();
    let at = random.below(length);
    let what = match random.below(5) {
        0 => {
            fs::remove_file(file).unwrap();
            "deleted".to_owned()
        }
        1 => {
            open().set_len(at).unwrap();
            format!("cut to {at} of {length}")
        }
        2 => {
            let behind = usize::try_from(length - at).unwrap();
            let zeros = vec![0; random.index(65_536).min(behind)];
            open().write_all_at(&zeros, at).unwrap();
            format!("{} zeros at {at} of {length}", zeros.len())
        }
        _ if length == 0 => "left empty".to_owned(),
        _ => {
            let mut byte = [0];
            open().read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << random.below(8);
            open().write_all_at(&byte, at).unwrap();
            format!("a bit flipped at {at} of {length}")
        }
    };
    format!("{}: {what}", file.display())
}

/// Starts on what is there, and checks old texts and new ones.
async fn survive(
    options: &Options,
    reference: &Reference,
    (random, old): (&mut Random, usize),
) -> Tally {
    let mut tally = Tally::default();
    let sidecar = start(options, &mut tally).await;
    for _ in 0..32 {
        let numbers = mix(random, old);
        let results = sidecar.embed(&reference.batch(&numbers)).await;
        reference.check(&numbers, &results);
        tally.count(&results);
    }
    sidecar.stop().await;
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_writes_costs_no_start_and_no_vector() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = long::random();
    let reference = Reference::new(folder.path()).await;
    let options = options(folder.path());
    let mut total = Tally::default();
    for round in 0..rounds(50) {
        let old = round * ADDED;
        total.add(live_and_die(&options, &reference, (&mut random, old)).await);
        let bytes = bytes(&options.data);
        assert!(bytes <= DISK_LIMIT, "round {round}: {bytes} bytes on disk");
    }
    println!("{total:?}, {} bytes on disk", bytes(&options.data));
    assert!(
        total.from_disk > 0,
        "nothing ever came from the disk, so nothing was tried: {total:?}"
    );
    total.add(survive(&options, &reference, (&mut random, TEXTS)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_no_start_and_no_vector() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = long::random();
    let reference = Reference::new(folder.path()).await;
    let options = options(folder.path());
    survive(&options, &reference, (&mut random, 0)).await;
    let mut total = survive(&options, &reference, (&mut random, 0)).await;
    assert!(
        total.from_disk > 0,
        "nothing came from the disk, so nothing can be damaged: {total:?}"
    );
    for round in 0..rounds(20) {
        let files = files(&options.data.join("cache"));
        let largest = files.iter().max_by_key(|file| fs::metadata(file).unwrap().len());
        let largest = largest.expect("there is a cache to damage");
        for _ in 0..=random.below(3) {
            // Every second time it hits the vectors, which most of the bytes are.
            let any = &files[random.index(files.len())];
            let file = if random.below(2) == 0 { largest } else { any };
            if file.exists() {
                println!("round {round}: {}", damage(file, &mut random));
            }
        }
        total.add(survive(&options, &reference, (&mut random, (round + 1) * ADDED)).await);
    }
    println!("{total:?}");
}
