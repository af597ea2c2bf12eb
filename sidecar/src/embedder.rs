//! The use case: a batch of inputs becomes a batch of vectors. The one file that knows the order of things:
//!
//! ```text
//! prompt, dimensions, space → keys → memory tier ── all hit: answer
//!   misses → by the terms: not found │ the default vector, computed behind │ wait
//!     flights ── lead: disk tier → one hop to the CPU pool: prepare → queue → compute → fill the cache → land
//!             └─ follow
//! ```

mod claim;
mod full;
mod lead;
mod miss;
mod reply;
mod terms;

#[cfg(test)]
mod tests;

use std::{num::NonZeroUsize, sync::Arc};

use arc_swap::Guard;
use embark_crds::contract::{Normalization, Prompt};
use tokio::time::Instant;

pub use reply::{EmbeddedItem, Reply, Timings};

use crate::{
    cache::Hit,
    clock::Clock,
    cpu_pool::CpuPool,
    embedding::Vector,
    error::{Error, ErrorKind},
    input::{Category, Input, Request},
    key::CacheKey,
    metrics::{Source, Stage},
    policy::Policy,
    served::{Runtime, ServedModel},
    trace::Trace,
};
use lead::Miss;
use reply::Answers;
use terms::Terms;

/// Answers requests.
#[derive(Clone)]
pub struct Embedder {
    pool: CpuPool,
    clock: Arc<dyn Clock>,
}

/// What every item of a call shares.
struct Call<'a> {
    model: &'a ServedModel,
    runtime: &'a Arc<Runtime>,
    policy: Guard<Arc<Policy>>,
    terms: Terms,
    prefix: &'a str,
    dimensions: u32,
    began: Instant,
    /// When it is answered with what is there; `None`: it waits as long as it takes.
    deadline: Option<Instant>,
    trace: Trace,
    now_ms: u64,
}

// === impl Embedder ===

impl Embedder {
    /// An embedder that prepares inputs on as many threads as `cores` and dates entries by `clock`.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(cores: NonZeroUsize, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Embedder { pool: CpuPool::new(cores)?, clock })
    }

    /// The vectors of a request's inputs. An item that fails does so alone.
    ///
    /// # Errors
    /// What is wrong with the request as a whole, or with the model.
    pub async fn embed(&self, model: &ServedModel, request: Request) -> Result<Reply, Error> {
        let call = self.begin(model, &request)?;
        let mut answers = Answers::of(request.items.len());
        let misses = self.look_up(&call, request, &mut answers);
        let all_hit = misses.is_empty();
        answers.timings.lookup = call.began.elapsed();
        model.metrics.stage(Stage::Lookup, answers.timings.lookup.as_secs_f64());
        if !all_hit {
            // Apart, so that a hit does not carry what only a miss needs.
            Box::pin(miss::answer(&self.pool, &call, misses, &mut answers)).await;
        }
        // One look at the clock is enough for a hit.
        answers.timings.total = if all_hit { answers.timings.lookup } else { call.began.elapsed() };
        model.metrics.request_seconds.observe(answers.timings.total.as_secs_f64());
        let reply = answers.into_reply(call.dimensions);
        if call.trace.is_on() {
            call.trace
                .hits(reply.items.iter().flatten().filter(|item| item.source.is_hit()).count());
        }
        Ok(reply)
    }

    fn begin<'a>(&self, model: &'a ServedModel, request: &Request) -> Result<Call<'a>, Error> {
        expect_space(model, request.expect_space_id.as_deref())?;
        let prefix = prefix(model, request.prompt.as_deref())?;
        let dimensions = dimensions(model, request.dimensions)?;
        let runtime = model.runtime()?;
        let (policy, began) = (model.policy.load(), Instant::now());
        let terms = Terms::of(&policy.cache, request.wishes, began);
        let now_ms = self.clock.now_ms();
        let deadline = request.timeout.and_then(|timeout| began.checked_add(timeout));
        Ok(Call {
            model,
            runtime,
            policy,
            terms,
            prefix,
            dimensions,
            began,
            deadline,
            trace: request.trace.clone(),
            now_ms,
        })
    }

    /// Answers from memory what is there, and gives what is not.
    fn look_up(&self, call: &Call<'_>, request: Request, answers: &mut Answers) -> Vec<Miss> {
        let (mut misses, mut stale) = (Vec::new(), Vec::new());
        for (index, item) in request.items.into_iter().enumerate() {
            let input = match item {
                Ok(input) => call.canonical(input),
                Err(error) => {
                    answers.set(index, Err(error));
                    continue;
                }
            };
            let key = CacheKey::of_input(&call.model.space, call.prefix, &input);
            let Some(hit) = call.in_memory(&key) else {
                match call.known_failure(&key) {
                    Some(error) => answers.set(index, call.failed_before(error)),
                    None => misses.push(Miss { index, key, input }),
                }
                continue;
            };
            if hit.is_stale && call.terms.refreshes() && call.known_failure(&key).is_none() {
                stale.push(Miss { index, key, input });
            }
            answers.set(index, Ok(call.hit(hit, Source::HitMemory)));
        }
        if !stale.is_empty() {
            lead::fill(&self.pool, call, stale);
        }
        misses
    }
}

// === impl Call ===

impl Call<'_> {
    fn in_memory(&self, key: &CacheKey) -> Option<Hit> {
        if !self.terms.looks_up {
            return None;
        }
        let hit = self.runtime.cache.lookup_memory(&self.policy.cache, key, self.now_ms)?;
        self.terms.takes(hit.age_ms).then_some(hit)
    }

    /// How an item failed for good, where that was lately.
    fn known_failure(&self, key: &CacheKey) -> Option<Error> {
        if !self.terms.looks_up {
            return None;
        }
        let known = self.runtime.cache.failure(&self.policy.cache, key, self.now_ms);
        let (error, age_ms) = known?;
        self.terms.takes(age_ms).then_some(error)
    }

    /// What an item is answered that failed for good. Who takes the default vector of what is not there takes it here too;
    /// nothing is computed behind it.
    fn failed_before(&self, error: Error) -> Result<EmbeddedItem, Error> {
        self.model.metrics.fetch.negative_answers.inc();
        match self.terms.on_miss {
            terms::Miss::Default => Ok(self.default_item()),
            terms::Miss::Wait(_) | terms::Miss::Fail => Err(error),
        }
    }

    /// The input that stands for all that have its vector.
    fn canonical(&self, input: Input) -> Input {
        let input = self.runtime.preparer.canonical(input);
        if input == Input::Category(Category::Unknown) {
            self.model.metrics.unknown_categories.inc();
        }
        input
    }

    fn hit(&self, hit: Hit, source: Source) -> EmbeddedItem {
        EmbeddedItem {
            vector: self.cut(hit.entry.vector),
            source: if hit.is_stale { Source::Stale } else { source },
            age_ms: hit.age_ms,
            tokens: hit.entry.tokens,
            truncated: hit.entry.truncated,
            chunks: hit.entry.chunks.into(),
            unknown_category: hit.entry.unknown_category,
        }
    }

    /// What stands for a vector that is not there.
    fn default_item(&self) -> EmbeddedItem {
        EmbeddedItem {
            vector: self.cut(self.policy.default_vector.clone()),
            source: Source::Default,
            age_ms: 0,
            tokens: 0,
            truncated: false,
            chunks: 0,
            unknown_category: false,
        }
    }

    fn cut(&self, vector: Vector) -> Vector {
        let normalize = self.model.contract.serving.output.normalization == Normalization::L2;
        vector.cut(self.dimensions as usize, normalize)
    }
}

// === free functions ===

fn expect_space(model: &ServedModel, expected: Option<&str>) -> Result<(), Error> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let space = model.space.to_string();
    if expected == space {
        return Ok(());
    }
    let allowed = format!("is not the space of model {:?}, which is {space}", model.name());
    Err(Error::of_field(ErrorKind::SpaceMismatch, "expect_space_id", expected, allowed))
}

/// The text of the prompt that a request names, of the default one, or nothing.
fn prefix<'a>(model: &'a ServedModel, named: Option<&str>) -> Result<&'a str, Error> {
    let (prompts, default) = model.prompts();
    let Some(name) = named.or(default) else {
        return Ok("");
    };
    let found = prompts.iter().find(|prompt| prompt.name == name);
    found.map(|prompt| prompt.prefix.as_str()).ok_or_else(|| {
        let allowed = match names(prompts).as_str() {
            "" => "is not a prompt of the model, which has none".to_owned(),
            names => format!("is not a prompt of the model; its prompts: {names}"),
        };
        Error::of_field(ErrorKind::PromptUnknown, "prompt", name, allowed)
    })
}

fn names(prompts: &[Prompt]) -> String {
    prompts.iter().map(|prompt| prompt.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn dimensions(model: &ServedModel, asked: Option<u32>) -> Result<u32, Error> {
    let output = &model.contract.serving.output;
    let full = output.dimensions.get();
    match asked {
        None => Ok(output.default_dimensions.get()),
        Some(asked) if asked <= full => Ok(asked),
        Some(asked) => {
            let allowed = format!("is more than the model's {full}");
            let kind = ErrorKind::Dimensions;
            Err(Error::of_field(kind, "dimensions", &asked.to_string(), allowed))
        }
    }
}
