//! Items that are not in memory, by the terms of their call.

use std::time::Duration;

use tokio::time::{timeout, timeout_at};

use super::{
    Call, EmbeddedItem,
    full::error,
    lead::{self, Miss, Waiting},
    reply::Answers,
    terms,
};
use crate::{
    batch::Full,
    cache::Hit,
    cpu_pool::CpuPool,
    error::{Error, ErrorKind},
    flight::{Landed, Landing, Origin},
    key::CacheKey,
    metrics::{Source, Stage},
    trace,
};

/// How long the disk tier is waited for before the default vector is given: far above what it takes, unless it hangs.
const DISK_PATIENCE: Duration = Duration::from_millis(50);

/// Answers every miss.
pub(super) async fn answer(
    pool: &CpuPool,
    call: &Call<'_>,
    misses: Vec<Miss>,
    answers: &mut Answers,
) {
    match call.terms.on_miss {
        terms::Miss::Wait(budget) => wait(pool, call, (misses, budget), answers).await,
        terms::Miss::Default => give_default(pool, call, misses, answers).await,
        terms::Miss::Fail => {
            for miss in on_disk(pool, call, misses, answers).await {
                answers.set(miss.index, Err(not_cached()));
            }
        }
    }
}

/// Joins flights and waits for them, no longer than the budget.
async fn wait(
    pool: &CpuPool,
    call: &Call<'_>,
    (misses, budget): (Vec<Miss>, Option<Duration>),
    answers: &mut Answers,
) {
    let (mut waiting, refused) = lead::join(pool, call, misses);
    for (index, full) in refused {
        // Who takes the default vector rather than wait long takes it rather than an error.
        let answer =
            if budget.is_some() { Ok(call.default_item()) } else { Err(refused_for(call, full)) };
        answers.set(index, answer);
    }
    waiting.reverse();
    let patience = budget.and_then(|budget| call.began.checked_add(budget));
    match patience.into_iter().chain(call.deadline).min() {
        None => gather(call, &mut waiting, answers).await,
        Some(until) => {
            // What it has taken from the line is answered.
            let _ = timeout_at(until, gather(call, &mut waiting, answers)).await;
        }
    }
    for Waiting { index, seat, leads } in waiting {
        let created_ms = seat.created_ms();
        let landing = if budget.is_some() { seat.leave_behind() } else { seat.leave() };
        let answer = match landing {
            Some(landing) => landed(call, landing, (leads, created_ms), answers),
            None if budget.is_some() => Ok(call.default_item()),
            None => Err(out_of_time(call)),
        };
        answers.set(index, answer);
    }
}

/// Answers as flights land; what it was cancelled at stays in `waiting`.
async fn gather(call: &Call<'_>, waiting: &mut Vec<Waiting>, answers: &mut Answers) {
    while let Some(next) = waiting.last_mut() {
        let landing = next.seat.landing().await;
        let (index, from) = (next.index, (next.leads, next.seat.created_ms()));
        waiting.pop();
        let answer = landed(call, landing, from, answers);
        answers.set(index, answer);
    }
}

/// What a landing answers.
fn landed(
    call: &Call<'_>,
    landing: Landing,
    (leads, created_ms): (bool, u64),
    answers: &mut Answers,
) -> Result<EmbeddedItem, Error> {
    let Landed { entry, origin, stages } = match landing {
        Ok(landed) => landed,
        // As where there was no place in the first place.
        Err(error) if error.kind == ErrorKind::QueueFull && call.terms.takes_default() => {
            return Ok(call.default_item());
        }
        Err(error) => return Err(error),
    };
    answers.timings.take_in(stages);
    let now_ms = call.runtime.cache.now_ms();
    let (source, age_ms, is_stale) = match origin {
        Origin::Found { source, age_ms, is_stale } => (source, age_ms, is_stale),
        Origin::Computed if leads => (Source::Computed, 0, false),
        Origin::Computed => (Source::Coalesced, now_ms.saturating_sub(created_ms), false),
    };
    Ok(call.hit(Hit { entry, age_ms, is_stale }, source))
}

/// Answers with the default vector what is not on disk either, and has it computed behind.
async fn give_default(pool: &CpuPool, call: &Call<'_>, misses: Vec<Miss>, answers: &mut Answers) {
    let missing = on_disk(pool, call, misses, answers).await;
    for miss in &missing {
        answers.set(miss.index, Ok(call.default_item()));
    }
    if call.terms.stores {
        // A disk that was too slow is not asked again: computing anew is what the caller was promised.
        lead::fill(pool, call, missing);
    }
}

/// Answers what is on disk, and gives what is not.
async fn on_disk(
    pool: &CpuPool,
    call: &Call<'_>,
    misses: Vec<Miss>,
    answers: &mut Answers,
) -> Vec<Miss> {
    let cache = &call.runtime.cache;
    if !call.terms.looks_up || !cache.has_disk() {
        return misses;
    }
    let started = tokio::time::Instant::now();
    let operation = cache.begin();
    let keys: Vec<CacheKey> = misses.iter().map(|miss| miss.key).collect();
    let found = timeout(DISK_PATIENCE, cache.lookup_disk(&operation, &keys)).await;
    let mut found = found.unwrap_or_default();
    found.resize_with(misses.len(), || None);
    answers.timings.disk = started.elapsed();
    call.model.metrics.stage(Stage::Disk, answers.timings.disk.as_secs_f64());
    let (took, items) = (answers.timings.disk, misses.len());
    call.trace.stage(trace::Stage { name: "disk", took, items });
    let (mut missing, mut stale) = (Vec::new(), Vec::new());
    for (miss, hit) in misses.into_iter().zip(found) {
        let Some(hit) = hit.filter(|hit| call.terms.takes(hit.age_ms)) else {
            missing.push(miss);
            continue;
        };
        let (index, is_stale) = (miss.index, hit.is_stale);
        if is_stale && call.terms.refreshes() {
            stale.push(miss);
        }
        answers.set(index, Ok(call.hit(hit, Source::HitDisk)));
    }
    if !stale.is_empty() {
        lead::fill(pool, call, stale);
    }
    missing
}

fn not_cached() -> Error {
    Error::new(ErrorKind::Miss, "the item is not cached, and nothing is computed for it")
}

fn out_of_time(call: &Call<'_>) -> Error {
    let waited = call.began.elapsed().as_millis();
    Error::new(ErrorKind::DeadlineExceeded, format!("the item was not computed within {waited} ms"))
}

/// Why there is no place in the queue, and when there may be one.
fn refused_for(call: &Call<'_>, full: Full) -> Error {
    error(full, call.runtime.batcher.wait(call.terms.class) / 2)
}
