//! The runtime that computes vectors: tract. This file and the folder beside it are the only ones that name it.
//!
//! A file is checked before the runtime sees it (`graph`), its inputs and its output are recognised (`port`, `output`), a
//! plan is made (`program`), and the plan is tried (`probe`). Panics of the runtime are contained everywhere.

use std::sync::Arc;

use bytes::Bytes;
use embark_crds::contract::{Input, ServingConfig, TextInput};
use tracing::{info, warn};

use self::{
    cut::Shapes,
    output::Wanted,
    program::{BuildError, Built, PlanCache, Program, Source, masked},
    run::{RunError, Shared},
};
use super::{
    engine::{Engine, Row, Threads},
    refusal::Refusal,
    tokenizer::TokenizerFacts,
};
use crate::{
    embedding::Embedding,
    error::{Error, ErrorKind},
};

mod cut;
mod graph;
mod output;
mod port;
mod probe;
mod program;
mod run;
mod threads;

/// The bytes of stack that [`load`] needs. A stack that overflows ends the process.
pub const STACK_BYTES: usize = program::STACK_BYTES;

/// The field of the model's file.
const SOURCE: &str = "spec.model.source";

/// A model in tract. A fork shares its weights and plans.
#[derive(Clone, Debug)]
pub struct TractEngine {
    shared: Arc<Shared>,
}

/// What a model is loaded with.
struct Parts<'a> {
    serving: &'a ServingConfig,
    text: &'a TextInput,
    tokenizer: &'a TokenizerFacts,
}

// === impl TractEngine ===

impl TractEngine {
    /// Tries the model: on a text, on the highest id of the tokenizer, on the longest row.
    ///
    /// # Errors
    /// It fails on one of them, or gives vectors of another length than the manifest says.
    pub fn probe(
        &self,
        serving: &ServingConfig,
        tokenizer: &TokenizerFacts,
    ) -> Result<(), Refusal> {
        let text = text_input(serving)?;
        probe::run(&self.shared, &Wanted::new(serving, text.pooling), (tokenizer, text))
    }
}

impl Engine for TractEngine {
    fn run(
        &mut self,
        rows: &[&Row],
        threads: Threads,
    ) -> Result<Vec<Result<Embedding, Error>>, Error> {
        let run = || self.shared.run(rows);
        let outcome = match threads {
            Threads::One => run(),
            Threads::All => threads::on_all(run),
        };
        outcome.map_err(|error| {
            warn!(%error, rows = rows.len(), "a model run failed");
            let message = format!("the model's runtime refused to run: {error}");
            Error::new(ErrorKind::Inference, message)
        })
    }

    fn mixes_lengths(&self) -> bool {
        self.shared.shapes.masked
    }

    fn fork(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }
}

// === impl Parts ===

impl Parts<'_> {
    /// The model with one plan for every shape, or, where the runtime refuses that, with a plan for each.
    fn shared(&self, source: Source, wanted: &Wanted<'_>) -> Result<Shared, Refusal> {
        let all_fixed = source.inputs.batch.is_some() && source.inputs.sequence.is_some();
        let words = match source.build_any(wanted) {
            Ok(built) => {
                let shapes = self.shapes(&source, false);
                let inputs = source.inputs.clone();
                let shared = self.with(Program::Any(built.plan.clone()), (inputs, shapes), &built);
                match if all_fixed { Ok(()) } else { self.try_lengths(&shared) } {
                    Ok(()) => return Ok(shared),
                    Err(words) => words,
                }
            }
            Err(BuildError::Refused(refusal)) => return Err(refusal),
            Err(BuildError::Runtime(words)) => words,
        };
        if all_fixed {
            return Err(cannot_run(&words));
        }
        info!(
            model = self.serving.name,
            reason = words,
            "the model does not run with a free batch and length; each shape gets its own plan"
        );
        self.by_shape(source, wanted)
    }

    fn by_shape(&self, source: Source, wanted: &Wanted<'_>) -> Result<Shared, Refusal> {
        let shapes = self.shapes(&source, true);
        let length = self.tokenizer.sample.len();
        let shape = (shapes.batch.unwrap_or(1), shapes.positions(length));
        let built = source.build_for(shape, wanted).map_err(|error| match error {
            BuildError::Refused(refusal) => refusal,
            BuildError::Runtime(words) => cannot_run(&words),
        })?;
        let inputs = source.inputs.clone();
        let cache = PlanCache::new(source, wanted, (shape, built.plan.clone()));
        Ok(self.with(Program::Shapes(Box::new(cache)), (inputs, shapes), &built))
    }

    fn with(
        &self,
        program: Program,
        (inputs, shapes): (port::Inputs, Shapes),
        built: &Built,
    ) -> Shared {
        Shared {
            program,
            inputs,
            shapes,
            output: built.output.clone(),
            layout: built.layout,
            dimensions: self.serving.output.dimensions.get() as usize,
            pooling: self.text.pooling,
            normalization: self.serving.output.normalization,
            pad_id: self.tokenizer.pad_id,
        }
    }

    fn shapes(&self, source: &Source, by_shape: bool) -> Shapes {
        Shapes {
            batch: source.inputs.batch.or(by_shape.then_some(1)),
            sequence: source.inputs.sequence,
            masked: masked(&source.inputs),
            bucketed: by_shape,
            longest: self.text.max_tokens as usize,
        }
    }

    /// Runs several shapes: some models build for any shape and then run for one.
    fn try_lengths(&self, shared: &Shared) -> Result<(), String> {
        let row =
            |tokens: usize| Row::of_tokens(vec![0; tokens.min(self.text.max_tokens as usize)]);
        for rows in [&[&row(3)][..], &[&row(7), &row(7)][..]] {
            match shared.run(rows) {
                Ok(_) | Err(RunError::Dimensions(_)) => {}
                Err(RunError::Runtime(words)) => return Err(words),
            }
        }
        Ok(())
    }
}

// === free functions ===

/// Loads a verified file. It takes a deep stack, see [`STACK_BYTES`].
///
/// # Errors
/// The file is no model, or one that does not fit the manifest or its tokenizer, or one that the runtime cannot run.
pub fn load(
    bytes: Bytes,
    serving: &ServingConfig,
    tokenizer: &TokenizerFacts,
) -> Result<TractEngine, Refusal> {
    let text = text_input(serving)?;
    let wanted = Wanted::new(serving, text.pooling);
    let proto = graph::read(&bytes)?;
    // The decoded copy holds the weights now.
    drop(bytes);
    let source = Source::parse(&proto, &wanted)?;
    probe::fixed_length(source.inputs.sequence, text)?;
    probe::vocabulary(graph::graph(&proto)?, &source.inputs.ids, tokenizer)?;
    drop(proto);
    let parts = Parts { serving, text, tokenizer };
    Ok(TractEngine { shared: Arc::new(parts.shared(source, &wanted)?) })
}

fn text_input(serving: &ServingConfig) -> Result<&TextInput, Refusal> {
    match &serving.input {
        Input::Text(text) => Ok(text),
        _ => Err(Refusal::new("spec.input", "only text is supported yet")),
    }
}

fn cannot_run(words: &str) -> Refusal {
    Refusal::new(SOURCE, format!("the runtime cannot run the model: {words}"))
}

#[cfg(test)]
mod test_onnx;
#[cfg(test)]
mod tests;
