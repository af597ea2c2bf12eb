//! What becomes of the flights that a call leads: a task of their own, which goes on when the call has gone.
//!
//! ```text
//! join or fill ─► launch ─┬─ disk tier, where there may be something ── found: land
//!                         ├─ fetch, where it is a URL ─┐
//!                         └─ prepare, on the CPU pool, a class at a time ─► queue ─► compute ─► fill the cache ─► land
//! ```

mod fetch;

use std::{iter, sync::Arc, time::Duration};

use embark_crds::contract::Normalization;
use tokio::time::Instant;

use super::{Call, Terms, claim::RowClaim, full::error, terms};
use crate::{
    batch::{Claim, Full, Job, Outcome, Place},
    cache::{Hit, Operation},
    cpu_pool::CpuPool,
    error::Error,
    fetch::Held,
    flight::{Ask, Interest, Joined, Landed, Lead, Origin, Seat, Stages, Wanted},
    input::{Class, Input, URL_FIELD},
    key::CacheKey,
    metrics::{ModelMetrics, Source, Stage},
    model::{engine::Row, preparer::Prepared},
    served::Runtime,
    trace::{self, Trace},
};

/// Inputs that are prepared in one go, so that many share the cores and a large call lets small ones between.
const PIECE: usize = 16;

/// An item that memory does not have.
pub(super) struct Miss {
    pub(super) index: usize,
    pub(super) key: CacheKey,
    pub(super) input: Input,
}

/// An item that waits for a flight.
pub(super) struct Waiting {
    pub(super) index: usize,
    pub(super) seat: Seat,
    /// Whether the flight was begun for it.
    pub(super) leads: bool,
}

/// A flight that is led, and what it needs.
struct Led {
    lead: Lead,
    place: Place,
    input: Input,
    disk: Duration,
    /// What an image holds that was fetched; its file is the input by now.
    held: Option<Held>,
}

/// What all flights of a call share.
#[derive(Clone)]
struct Course {
    pool: CpuPool,
    runtime: Arc<Runtime>,
    prefix: Arc<str>,
    metrics: ModelMetrics,
    normalization: Normalization,
    terms: Terms,
    trace: Trace,
}

/// Who boards, and why it may not lead.
#[derive(Clone, Copy)]
struct Boarding<'a> {
    interest: Interest,
    began: Instant,
    operation: &'a Arc<Operation>,
    refused: Option<Full>,
}

/// Joins or leads a flight for each miss. What finds no place in the queue is given back.
pub(super) fn join(
    pool: &CpuPool,
    call: &Call<'_>,
    misses: Vec<Miss>,
) -> (Vec<Waiting>, Vec<(usize, Full)>) {
    let operation = Arc::new(call.runtime.cache.begin());
    let (interest, began) = (call.terms.interest(), call.began);
    let boarding =
        Boarding { interest, began, operation: &operation, refused: too_long_a_wait(call) };
    let (mut waiting, mut refused) = (Vec::with_capacity(misses.len()), Vec::new());
    let mut led = Vec::new();
    for miss in misses {
        let index = miss.index;
        match board(call.runtime, boarding, miss.key, miss.input) {
            Ok((seat, lead)) => {
                waiting.push(Waiting { index, seat, leads: lead.is_some() });
                led.extend(lead.and_then(|lead| land_late(call, lead)));
            }
            Err(full) => refused.push((index, full)),
        }
    }
    launch(Course::of(pool, call), led);
    (waiting, refused)
}

/// Has items computed that nobody waits for and that are on no tier, or are there and stale.
pub(super) fn fill(pool: &CpuPool, call: &Call<'_>, misses: Vec<Miss>) {
    let operation = Arc::new(call.runtime.cache.begin());
    let course = Course::of(pool, call);
    let led = misses
        .into_iter()
        .filter_map(|miss| course.lead_behind((call.began, &operation), miss.key, miss.input))
        .filter_map(|led| land_late(call, led));
    course.prepare(led.collect());
}

/// Lands what came into memory between the look into it and the lead, and gives what did not. A flight that landed in
/// between could not be joined any more, and its key is not to be computed twice. From the lead on, others join.
fn land_late(call: &Call<'_>, led: Led) -> Option<Led> {
    let hit = call.in_memory(led.lead.key()).filter(|hit| !hit.is_stale);
    let Some(Hit { entry, age_ms, is_stale }) = hit else { return Some(led) };
    let origin = Origin::Found { source: Source::HitMemory, age_ms, is_stale };
    let landed = Landed { entry, origin, stages: Stages::default() };
    let Led { lead, place, input, disk, held } = led;
    lead.land_found(landed).map(|lead| Led { lead, place, input, disk, held })
}

/// Why a call leads no flight: what waits already takes longer than it has time. Who takes the default vector in the end
/// does not mind.
fn too_long_a_wait(call: &Call<'_>) -> Option<Full> {
    let deadline = call.deadline.filter(|_| call.terms.on_miss == terms::Miss::Wait(None))?;
    let wait = call.runtime.batcher.wait(call.terms.class);
    let left = deadline.saturating_duration_since(Instant::now());
    (wait > left).then_some(Full::Wait(wait, left))
}

/// Joins a flight, or leads one.
fn board(
    runtime: &Runtime,
    Boarding { interest, began, operation, refused }: Boarding<'_>,
    key: CacheKey,
    input: Input,
) -> Result<(Seat, Option<Led>), Full> {
    let counts = |flown: &Operation| runtime.cache.counts(flown, &key);
    let reserve = || match refused {
        Some(full) => Err(full),
        None => {
            let bytes = runtime.preparer.waiting_bytes(&input);
            runtime.batcher.reserve(interest.class, bytes)
        }
    };
    let joined = runtime.flights.join(Ask { key, interest, began, operation }, counts, reserve)?;
    Ok(match joined {
        Joined::Leads(seat, lead, place) => {
            // Out of its frame, of which it would hold all until it is computed.
            let (input, disk) = (input.detached(), Duration::ZERO);
            (seat, Some(Led { lead, place, input, disk, held: None }))
        }
        Joined::Follows(seat) => (seat, None),
    })
}

/// Sets flights on their way, by the disk tier where its entries count.
fn launch(course: Course, led: Vec<Led>) {
    if led.is_empty() {
        return;
    }
    if course.terms.looks_up && course.runtime.cache.has_disk() {
        // It ends by itself: each of its steps is bounded in time.
        tokio::spawn(async move {
            let led = course.look_on_disk(led).await;
            course.prepare(led);
        });
    } else {
        course.prepare(led);
    }
}

// === impl Course ===

impl Course {
    fn of(pool: &CpuPool, call: &Call<'_>) -> Self {
        Course {
            pool: pool.clone(),
            runtime: Arc::clone(call.runtime),
            prefix: call.prefix.into(),
            metrics: call.model.metrics.clone(),
            normalization: call.model.contract.serving.output.normalization,
            terms: call.terms,
            trace: call.trace.clone(),
        }
    }

    /// Lands what is on disk, and gives what is to be computed.
    async fn look_on_disk(&self, led: Vec<Led>) -> Vec<Led> {
        let started = Instant::now();
        let keys: Vec<_> = led.iter().map(|led| *led.lead.key()).collect();
        let Some(first) = led.first() else { return led };
        let operation = first.lead.operation();
        let found = self.runtime.cache.lookup_disk(&operation, &keys).await;
        let disk = started.elapsed();
        self.metrics.stage(Stage::Disk, disk.as_secs_f64());
        self.trace.stage(trace::Stage { name: "disk", took: disk, items: led.len() });
        let mut missing = Vec::new();
        for (led, hit) in led.into_iter().zip(found) {
            let led = Led { disk, ..led };
            missing.extend(match hit.filter(|hit| self.terms.takes(hit.age_ms)) {
                Some(hit) => self.land_found(led, hit),
                None => Some(led),
            });
        }
        missing
    }

    /// Lands what was found; what is stale is computed anew by a flight behind it, if there is none already. Gives what is to
    /// be computed.
    fn land_found(&self, led: Led, Hit { entry, age_ms, is_stale }: Hit) -> Option<Led> {
        let Led { lead, place, input, disk, held } = led;
        let (key, stages) = (*lead.key(), Stages { disk, ..Stages::default() });
        let origin = Origin::Found { source: Source::HitDisk, age_ms, is_stale };
        if let Some(lead) = lead.land_found(Landed { entry, origin, stages }) {
            return Some(Led { lead, place, input, disk, held });
        }
        drop(place);
        if !is_stale || !self.terms.refreshes() {
            return None;
        }
        let operation = Arc::new(self.runtime.cache.begin());
        self.lead_behind((Instant::now(), &operation), key, input)
    }

    /// Has a flight made that nobody waits for, and gives it where there was none. Where there is no room it is not made:
    /// the next miss asks again.
    fn lead_behind(
        &self,
        (began, operation): (Instant, &Arc<Operation>),
        key: CacheKey,
        input: Input,
    ) -> Option<Led> {
        let boarding = Boarding { interest: self.terms.fill(), began, operation, refused: None };
        let Ok((seat, led)) = board(&self.runtime, boarding, key, input) else {
            self.metrics.batch.dropped_fills.inc();
            return None;
        };
        seat.leave_behind();
        led
    }

    /// Prepares inputs on the pool, those first that somebody waits for; what is to be fetched is fetched before.
    fn prepare(&self, led: Vec<Led>) {
        let mut by_class = [Vec::new(), Vec::new()];
        for led in led {
            led.lead.set_computes();
            let Some(class) = self.wanted(&led.lead) else { continue };
            if let Input::ImageUrl(url) = &led.input {
                self.fetch(class, url.clone(), led);
            } else {
                by_class[class as usize].push(led);
            }
        }
        for (class, mut led) in Class::ALL.into_iter().zip(by_class) {
            while !led.is_empty() {
                let rest = led.split_off(led.len().min(PIECE));
                self.hand_over(class, led);
                led = rest;
            }
        }
    }

    fn hand_over(&self, class: Class, led: Vec<Led>) {
        for led in &led {
            led.lead.set_class(class);
        }
        match self.pool.admit(class) {
            Ok(admission) => {
                let course = self.clone();
                admission.hand_over(move || course.queue_all(led));
            }
            Err(error) => {
                self.refused(class, led.len());
                led.into_iter().for_each(|led| led.lead.land(Err(error.clone())));
            }
        }
    }

    /// Counts what is not computed behind an answer, for want of room.
    fn refused(&self, class: Class, items: usize) {
        if class == Class::Background {
            self.metrics.batch.dropped_fills.inc_by(items as u64);
        }
    }

    /// Prepares inputs and queues each when it is ready.
    fn queue_all(&self, led: Vec<Led>) {
        let (begun, items) = (Instant::now(), led.len());
        led.into_iter().for_each(|led| self.queue(led));
        self.trace.stage(trace::Stage { name: "prepare", took: begun.elapsed(), items });
    }

    /// Prepares one input and queues it.
    fn queue(&self, led: Led) {
        let Led { lead, place, input, disk, held } = led;
        if self.wanted(&lead).is_none() {
            return;
        }
        let begun = Instant::now();
        let prepared = match self.runtime.preparer.prepare(&self.prefix, &input) {
            Ok(prepared) => prepared,
            Err(error) if held.is_some() => {
                return self.fail(lead, error.of_other_field(URL_FIELD));
            }
            Err(error) => return self.fail(lead, error),
        };
        self.metrics.stage(Stage::Preprocess, begun.elapsed().as_secs_f64());
        let preprocess = begun.elapsed() + held.map_or(Duration::ZERO, |held| held.took);
        let stages = Stages { disk, preprocess, ..Stages::default() };
        let (cache, trace) = (Arc::clone(&self.runtime.cache), self.trace.clone());
        let Prepared { rows, unknown_category } = prepared;
        self.submit(place, rows, RowClaim { lead, cache, stages, trace, unknown_category });
    }

    /// Queues the rows of an input, each in a place of its own: all of them, or none where there is no room for all.
    fn submit(&self, place: Place, rows: Vec<Row>, claim: RowClaim) {
        let class = place.class();
        let batcher = &self.runtime.batcher;
        let more = rows.iter().skip(1).map(|row| batcher.reserve(class, size_of_val(row.tokens())));
        let more = match more.collect::<Result<Vec<Place>, Full>>() {
            Ok(more) => more,
            Err(full) => {
                drop(place);
                return self.turn_away(class, full, Box::new(claim));
            }
        };
        let places = iter::once(place).chain(more);
        let claims = claim.split(rows.len(), self.normalization);
        for ((place, row), claim) in places.zip(rows).zip(claims) {
            if let Err((full, job)) = batcher.submit(place, Job { row, claim }) {
                // With the first that finds no room the input has failed, and nobody wants its other rows.
                return self.turn_away(class, full, job.claim);
            }
        }
    }

    /// Lands a failure, which is remembered where it is for good.
    fn fail(&self, lead: Lead, error: Error) {
        if lead.is_stored() {
            self.runtime.cache.fail(&lead.operation(), *lead.key(), &error);
        }
        lead.land(Err(error));
    }

    /// Lands what finds no room.
    fn turn_away(&self, class: Class, full: Full, claim: Box<dyn Claim>) {
        self.refused(class, 1);
        let (queued, ran) = (Duration::ZERO, Duration::ZERO);
        let wait = self.runtime.batcher.wait(self.terms.class) / 2;
        claim.complete(Outcome { result: Err(error(full, wait)), queued, ran });
    }

    /// The class in which a flight is wanted; one that nobody wants has ended.
    fn wanted(&self, lead: &Lead) -> Option<Class> {
        match lead.wanted() {
            Wanted::In(class) => Some(class),
            Wanted::Elsewhere => None,
            Wanted::ByNobody => {
                self.metrics.batch.cancelled.inc();
                None
            }
        }
    }
}
