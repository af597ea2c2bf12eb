//! A server at saturation for a while, and everything at once that may come its way: callers who go, deadlines, wishes of
//! every kind, streams, texts that its model cannot bear, other policies, invalidations, a disk that fills up and becomes
//! read-only. No vector is wrong, no call stays without an answer, nothing grows.
//!
//! 90 seconds; ten minutes with `EMBARK_TEST_LONG=1`. `EMBARK_TEST_SEED` repeats a run's choices.
//!
//! What computes is always busy, and at nice 10 it gives way to the tests beside it. What answers is not: few callers, who
//! think between their calls, find the queue full because it is short, not because they are many.

mod callers;
mod calls;
mod reference;
mod trouble;
mod usage;

use std::{path::Path, sync::Arc, time::Duration};

use embark_tests::{
    Manifest, Mount, Random, Sidecar, long,
    sidecar::{LIMIT, Options, difference, pass, until},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use callers::{Address, Tally};
use reference::Reference;
use usage::{Meter, Usage};

/// Values of a vector.
const DIMENSIONS: i64 = 256;
/// What a token costs: some 130 000 multiplications.
const HIDDEN: i64 = 256;
/// Callers of Embed, and of EmbedStream.
const CALLERS: usize = 10;
const STREAMS: usize = 2;
/// What a vector may differ from that of a server without a cache.
const TOLERANCE: f32 = 1e-5;
/// Both tiers' share of memory: the memory tier, and what sled keeps of two databases.
const BUDGETED: u64 = (4 + 2 * 16) << 20;
/// What may grow beside that without being a leak: buffers, arenas of threads, a frame of many texts.
const GROWTH: u64 = 64 << 20;

/// Threads of pools that start as they are needed, and stay.
const POOLED: usize = 20;

/// A model whose queue and memory are so small that both are full, and whose texts are short.
fn manifest(folder: &Path) -> Manifest {
    Manifest::poisonous("soak", folder, (DIMENSIONS, HIDDEN))
        .with("/spec/input/text/maxTokens", 64)
        .with("/spec/batching/maxItems", 16)
        .with("/spec/batching/queue/maxItems", 48)
        .with("/spec/cache/memory/sizeLimit", "4Mi")
        .with("/spec/cache/disk/sizeLimit", "64Mi")
        .with("/spec/cache/allowInvalidation", true)
}

/// Callers who go on until they are told to stop, or until the server has gone.
fn callers(address: &Address, random: &mut Random) -> JoinSet<Tally> {
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        tasks.spawn(callers::call(address.clone(), Random::new(random.number())));
    }
    for _ in 0..STREAMS {
        tasks.spawn(callers::stream(address.clone(), Random::new(random.number())));
    }
    tasks
}

/// What all of them found. A panic of one is the test's, at once.
async fn join(mut tasks: JoinSet<Tally>) -> Tally {
    let mut total = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        total.add(tally.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    total
}

/// Every text once more, with nothing beside it.
async fn check_all(sidecar: &Sidecar, reference: &Reference) {
    let texts: Vec<&str> = reference.texts.iter().map(String::as_str).collect();
    for (texts, vectors) in texts.chunks(32).zip(reference.vectors.chunks(32)) {
        for (result, vector) in sidecar.embed(texts).await.iter().zip(vectors) {
            let off = difference(&result.vector, vector);
            assert!(off <= TOLERANCE, "from {:?} and off by {off}", result.source());
        }
    }
}

/// Its descriptors are those that it had, once nobody asks any more, and of threads it has those beside that pools start when
/// they are needed first: sled's seven, the disk's readers, those of runs on all cores.
async fn settle(sidecar: &Sidecar, idle: Usage) {
    let began = Instant::now();
    loop {
        let now = Usage::of(sidecar);
        let threads = now.threads <= idle.threads + POOLED;
        if threads && now.descriptors <= idle.descriptors + 16 {
            println!("after it {now:?}");
            return;
        }
        assert!(
            began.elapsed() < LIMIT,
            "idle {idle:?}, now {now:?}: {:?}",
            usage::threads(sidecar)
        );
        pass(Duration::from_millis(100)).await;
    }
}

/// What a soak at saturation must have met, or it has shown nothing.
fn assert_met(tally: &Tally, sidecar: &Sidecar) {
    for what in [
        "HIT_MEMORY",
        "HIT_DISK",
        "COMPUTED",
        "COALESCED",
        "DEFAULT",
        "QUEUE_FULL",
        "MISS",
        "DEADLINE_EXCEEDED",
        "INFERENCE",
        "NOT_FINITE",
        "TEXT_EMPTY",
        "went",
        "streams",
    ] {
        assert!(tally.of(what) > 0, "never met {what}: {tally:?}");
    }
    for said in [
        "follows another cache policy",
        "attempt to divide by zero",
        "kept in memory alone",
        "No space left on device",
        "Read-only file system",
    ] {
        assert!(sidecar.log().contains(said), "the log never says {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_at_saturation_gives_no_wrong_vector_and_leaves_no_call_unanswered() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = long::random();
    let manifest = manifest(folder.path());
    let reference = Arc::new(Reference::new(folder.path(), &manifest).await);
    let options = Options::new(folder.path(), &manifest);
    let mount = Mount::tmpfs(&options.data, "size=96m");
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["a first text, so that every thread is there"]).await;
    let idle = Usage::of(&sidecar);

    let stop = watch::Sender::new(false);
    let address = Address::new(&sidecar, reference.clone(), stop.subscribe()).await;
    let tasks = callers(&address, &mut random);
    let meter = Meter::start(sidecar.id());
    let trouble = trouble::Trouble::new(&sidecar, (manifest, options.clone()), &address).await;
    let tally = tokio::select! {
        () = trouble.make(&mount, (Instant::now() + long::lasts(), &mut random)) => {
            stop.send_replace(true);
            join(tasks).await
        }
        // One that fails is not waited for until the end.
        () = address.failed() => panic!("a caller failed, see above:\n{}", sidecar.log()),
    };
    println!("{tally:?}");
    let usage = meter.stop().await;
    println!("idle {idle:?}; {usage}");
    usage.assert_flat(BUDGETED + GROWTH);
    assert_met(&tally, &sidecar);

    settle(&sidecar, idle).await;
    trouble.calm().await;
    check_all(&sidecar, &reference).await;
    end_under_load(sidecar, (address, random), (options, &reference)).await;
}

/// A SIGTERM while everybody asks: what is under way is answered, what comes too late is told so, and the next process
/// knows nothing wrong.
async fn end_under_load(
    sidecar: Sidecar,
    (address, mut random): (Address, Random),
    (options, reference): (Options, &Reference),
) {
    let (address, ending) = address.until_refused();
    let tasks = callers(&address, &mut random);
    let busy = async || address.answered() > 20 * CALLERS as u64;
    until("everybody asks again", busy).await;
    ending.send_replace(true);
    sidecar.signal("-TERM").await;
    let (tally, ()) = tokio::join!(join(tasks), sidecar.stopped());
    println!("at the end {tally:?}");
    let sidecar = Sidecar::start(&options).await;
    check_all(&sidecar, reference).await;
    sidecar.stop().await;
}
