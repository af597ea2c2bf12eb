//! Items that are not in memory: the disk tier, then the model.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{Call, EmbeddedItem, reply::Answers};
use crate::{
    batch::{Full, Job, Outcome, Place},
    cache::{Hit, Operation},
    cpu_pool::CpuPool,
    embedding::Embedding,
    error::{Error, ErrorKind},
    input::Text,
    key::CacheKey,
    metrics::{ModelMetrics, Source, Stage},
    served::Runtime,
};

/// An item that memory does not have.
pub(super) struct Miss {
    pub(super) index: usize,
    pub(super) key: CacheKey,
    pub(super) text: Text,
}

/// A miss on its way: what the hop to the CPU pool takes.
struct Lead {
    index: usize,
    key: CacheKey,
    text: Text,
    place: Result<Place, Full>,
}

/// Where the hop leaves an item.
enum Step {
    OnDisk(Hit),
    Computing(oneshot::Receiver<Outcome>),
    Failed(Error),
}

struct Prepared {
    steps: Vec<(usize, Step)>,
    disk: Duration,
    preprocess: Duration,
}

/// What the hop works with.
struct Hop {
    runtime: Arc<Runtime>,
    operation: Arc<Operation>,
    prefix: String,
    metrics: ModelMetrics,
}

/// Answers every miss. Equal ones are computed once.
pub(super) async fn answer(
    pool: &CpuPool,
    call: &Call<'_>,
    misses: Vec<Miss>,
    answers: &mut Answers,
) {
    let (leads, followers) = lead(call, misses);
    let indices: Vec<usize> = leads.iter().map(|lead| lead.index).collect();
    let hop = Hop {
        runtime: Arc::clone(call.runtime),
        operation: Arc::new(call.runtime.cache.begin()),
        prefix: call.prefix.to_owned(),
        metrics: call.model.metrics.clone(),
    };
    match pool.run(move || hop.prepare(leads)).await {
        Ok(prepared) => gather(call, prepared, answers).await,
        Err(error) => indices.iter().for_each(|&index| answers.set(index, Err(error.clone()))),
    }
    for (index, lead) in followers {
        if let Some(answer) = answers.get(lead).cloned() {
            answers.set(index, answer.map(coalesced));
        }
    }
}

/// Takes a place in the queue for each item that leads; an item whose equal leads already follows it.
fn lead(call: &Call<'_>, misses: Vec<Miss>) -> (Vec<Lead>, Vec<(usize, usize)>) {
    let mut leading: HashMap<CacheKey, usize> = HashMap::with_capacity(misses.len());
    let (mut leads, mut followers) = (Vec::with_capacity(misses.len()), Vec::new());
    for Miss { index, key, text } in misses {
        if let Some(&lead) = leading.get(&key) {
            followers.push((index, lead));
            continue;
        }
        leading.insert(key, index);
        leads.push(Lead { index, key, text, place: call.runtime.batcher.reserve() });
    }
    (leads, followers)
}

async fn gather(call: &Call<'_>, prepared: Prepared, answers: &mut Answers) {
    let metrics = &call.model.metrics;
    answers.timings.disk = prepared.disk;
    answers.timings.preprocess = prepared.preprocess;
    metrics.stage(Stage::Disk, prepared.disk.as_secs_f64());
    for (index, step) in prepared.steps {
        let answer = match step {
            Step::OnDisk(hit) => Ok(call.hit(hit, Source::HitDisk)),
            Step::Failed(error) => Err(error),
            Step::Computing(outcome) => match outcome.await {
                Ok(outcome) => {
                    let timings = &mut answers.timings;
                    timings.queue = timings.queue.max(outcome.queued);
                    timings.inference = timings.inference.max(outcome.ran);
                    outcome.result.map(|embedding| computed(call, &embedding))
                }
                Err(_) => Err(Error::new(ErrorKind::WorkerLost, "the item's worker ended")),
            },
        };
        answers.set(index, answer);
    }
}

fn computed(call: &Call<'_>, embedding: &Embedding) -> EmbeddedItem {
    EmbeddedItem {
        vector: call.cut(&embedding.vector),
        source: Source::Computed,
        age_ms: 0,
        tokens: embedding.tokens,
        truncated: embedding.truncated,
    }
}

/// What a follower of that answer says: followers of a disk hit say so too.
fn coalesced(lead: EmbeddedItem) -> EmbeddedItem {
    match lead.source {
        Source::Computed => EmbeddedItem { source: Source::Coalesced, ..lead },
        _ => lead,
    }
}

// === impl Hop ===

impl Hop {
    fn prepare(self, leads: Vec<Lead>) -> Prepared {
        let started = Instant::now();
        // Not the time of the call: it may have waited for its turn here, and entries are judged by the present.
        let now_ms = self.runtime.cache.now_ms();
        let mut steps = Vec::with_capacity(leads.len());
        let mut missing = Vec::with_capacity(leads.len());
        for lead in leads {
            match self.runtime.cache.lookup_disk(&self.operation, &lead.key, now_ms) {
                Some(hit) => steps.push((lead.index, Step::OnDisk(hit))),
                None => missing.push(lead),
            }
        }
        let disk = started.elapsed();
        let mut preprocess = Duration::ZERO;
        for lead in missing {
            let begun = Instant::now();
            let (index, step) = (lead.index, self.queue(lead));
            preprocess = preprocess.max(begun.elapsed());
            steps.push((index, step.unwrap_or_else(Step::Failed)));
        }
        Prepared { steps, disk, preprocess }
    }

    /// Tokenises an item and queues it.
    fn queue(&self, lead: Lead) -> Result<Step, Error> {
        let place = lead.place.map_err(full)?;
        let begun = Instant::now();
        let row = self.runtime.tokenizer.encode(&self.prefix, lead.text.as_str())?;
        self.metrics.stage(Stage::Preprocess, begun.elapsed().as_secs_f64());
        let (reply, outcome) = oneshot::channel();
        let (cache, operation) = (Arc::clone(&self.runtime.cache), Arc::clone(&self.operation));
        let remember = move |embedding: &Embedding| {
            cache.fill(&operation, lead.key, operation.entry(embedding));
        };
        let job = Job { row, remember: Box::new(remember), reply };
        self.runtime.batcher.submit(place, job).map_err(full)?;
        Ok(Step::Computing(outcome))
    }
}

fn full(full: Full) -> Error {
    let kind = match full {
        Full::Items(_) | Full::Cost(..) => ErrorKind::QueueFull,
        Full::Closed => ErrorKind::Draining,
    };
    Error::new(kind, full.to_string())
}
