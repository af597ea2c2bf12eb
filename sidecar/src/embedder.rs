//! The use case: a batch of texts becomes a batch of vectors. The one file that knows the order of things:
//!
//! ```text
//! prompt, dimensions, space → keys → memory tier ── all hit: answer
//!   misses → places in the queue → one hop to the CPU pool: disk tier, then tokenise → queue → compute
//!   each row fills the cache by itself; the call gathers what became of its items
//! ```

mod miss;
mod reply;

use std::sync::Arc;

use embark_crds::contract::{Normalization, Prompt};
use tokio::time::Instant;

pub use reply::{EmbeddedItem, Reply, Timings};

use crate::{
    clock::Clock,
    cpu_pool::CpuPool,
    error::{Error, ErrorKind},
    input::Request,
    key::CacheKey,
    metrics::{Source, Stage},
    served::{Runtime, ServedModel},
};
use miss::Miss;
use reply::Answers;

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
    prefix: &'a str,
    dimensions: u32,
    now_ms: u64,
}

// === impl Embedder ===

impl Embedder {
    /// An embedder that prepares items on `pool` and dates entries by `clock`.
    pub fn new(pool: CpuPool, clock: Arc<dyn Clock>) -> Self {
        Embedder { pool, clock }
    }

    /// The vectors of a request's texts. An item that fails does so alone.
    ///
    /// # Errors
    /// What is wrong with the request as a whole, or with the model.
    pub async fn embed(&self, model: &ServedModel, request: Request) -> Result<Reply, Error> {
        let started = Instant::now();
        let call = self.prepare(model, &request)?;
        let mut answers = Answers::of(request.texts.len());
        let misses = call.look_up(&request, &mut answers);
        answers.timings.lookup = started.elapsed();
        model.metrics.stage(Stage::Lookup, answers.timings.lookup.as_secs_f64());
        if !misses.is_empty() {
            miss::answer(&self.pool, &call, misses, &mut answers).await;
        }
        answers.timings.total = started.elapsed();
        model.metrics.request_seconds.observe(answers.timings.total.as_secs_f64());
        Ok(answers.into_reply(call.dimensions))
    }

    fn prepare<'a>(&self, model: &'a ServedModel, request: &Request) -> Result<Call<'a>, Error> {
        expect_space(model, request.expect_space_id.as_deref())?;
        let prefix = prefix(model, request.prompt.as_deref())?;
        let dimensions = dimensions(model, request.dimensions)?;
        let runtime = model.runtime()?;
        Ok(Call { model, runtime, prefix, dimensions, now_ms: self.clock.now_ms() })
    }
}

// === impl Call ===

impl Call<'_> {
    /// Answers from memory what is there, and gives what is not.
    fn look_up(&self, request: &Request, answers: &mut Answers) -> Vec<Miss> {
        let mut misses = Vec::new();
        for (index, text) in request.texts.iter().enumerate() {
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    answers.set(index, Err(error.clone()));
                    continue;
                }
            };
            let key = CacheKey::of_text(&self.model.space, self.prefix, text.as_str());
            match self.runtime.cache.lookup_memory(&key, self.now_ms) {
                Some(hit) => answers.set(index, Ok(self.hit(hit, Source::HitMemory))),
                None => misses.push(Miss { index, key, text: text.clone() }),
            }
        }
        misses
    }

    fn hit(&self, hit: crate::cache::Hit, source: Source) -> EmbeddedItem {
        EmbeddedItem {
            vector: self.cut(&hit.entry.vector),
            source,
            age_ms: hit.age_ms,
            tokens: hit.entry.tokens,
            truncated: hit.entry.truncated,
        }
    }

    fn cut(&self, vector: &crate::embedding::Vector) -> crate::embedding::Vector {
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
    let text = model.text_input()?;
    let Some(name) = named.or(text.default_prompt.as_deref()) else {
        return Ok("");
    };
    let found = text.prompts.iter().find(|prompt| prompt.name == name);
    found.map(|prompt| prompt.prefix.as_str()).ok_or_else(|| {
        let allowed = match names(&text.prompts).as_str() {
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
