//! The runtime that computes vectors: tract. This file and the folder beside it are the only ones that name it.
//!
//! A file is checked before the runtime sees it (`graph`), its inputs and its output are recognised (`feed`, `output`), a
//! plan is made (`program`), and the plan is tried (`probe`). What goes in is known to `feed` and
//! `probe` alone. Panics of the runtime are contained everywhere.

use std::sync::Arc;

use bytes::Bytes;
use embark_crds::contract::{Pooling, ServingConfig};
use tracing::{info, warn};

pub use self::feed::Takes;
use self::{
    cut::Shapes,
    feed::Feed,
    output::Wanted,
    program::{BuildError, Built, PlanCache, Program, Source},
    run::{RunError, Shared},
};
use super::{
    engine::{Engine, Row, Threads},
    refusal::Refusal,
    stages::{Stages, timed},
};
use crate::{
    embedding::Embedding,
    error::{Error, ErrorKind},
};

mod cut;
mod feed;
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
    wanted: Wanted<'a>,
}

// === impl TractEngine ===

impl TractEngine {
    /// Tries the model on rows such as callers may send.
    ///
    /// # Errors
    /// It fails on one of them, or gives vectors of another length than the manifest says.
    pub fn probe(&self) -> Result<(), Refusal> {
        self.shared.probe()
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
    fn shared(&self, source: Source) -> Result<Shared, Refusal> {
        let shapes = source.feed.shapes();
        let words = match source.build_any(&self.wanted) {
            Ok(built) => {
                let feed = source.feed.clone();
                let shared = self.with(Program::Any(built.plan.clone()), (feed, shapes), &built);
                match if shapes.all_fixed() { Ok(()) } else { try_shapes(&shared) } {
                    Ok(()) => return Ok(shared),
                    Err(words) => words,
                }
            }
            Err(BuildError::Refused(refusal)) => return Err(refusal),
            Err(BuildError::Runtime(words)) => words,
        };
        if shapes.all_fixed() {
            return Err(cannot_run(&words));
        }
        info!(
            model = self.serving.name,
            reason = words,
            "the model does not run with a free batch and length; each shape gets its own plan"
        );
        self.by_shape(source, shapes.by_shape())
    }

    fn by_shape(&self, source: Source, shapes: Shapes) -> Result<Shared, Refusal> {
        let shape = (shapes.batch.unwrap_or(1), shapes.positions(source.feed.usual_length()));
        let built = source.build_for(shape, &self.wanted).map_err(|error| match error {
            BuildError::Refused(refusal) => refusal,
            BuildError::Runtime(words) => cannot_run(&words),
        })?;
        let feed = source.feed.clone();
        let cache = PlanCache::new(source, &self.wanted, (shape, built.plan.clone()));
        Ok(self.with(Program::Shapes(Box::new(cache)), (feed, shapes), &built))
    }

    fn with(&self, program: Program, (feed, shapes): (Feed, Shapes), built: &Built) -> Shared {
        Shared {
            program,
            feed,
            shapes,
            output: built.output.clone(),
            layout: built.layout,
            dimensions: self.wanted.dimensions,
            pooling: self.wanted.pooling.unwrap_or(Pooling::None),
            normalization: self.serving.output.normalization,
        }
    }
}

// === free functions ===

/// What is checked of a file before the runtime sees it, whatever the model takes: no more than that.
///
/// # Errors
/// The file is no model, or asks for what it does not hold.
pub fn check(bytes: &[u8]) -> Result<(), Refusal> {
    let proto = graph::read(bytes)?;
    let graph = graph::graph(&proto)?;
    let known = tract_onnx::onnx().op_register.0;
    let wanted: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    // What a feed looks for in it.
    if let [input, ..] = port::inputs(graph).as_slice() {
        graph::embedding_rows(graph, &input.name);
    }
    match graph::unknown_operator(graph, &wanted, |operator| known.contains_key(operator)) {
        None => Ok(()),
        Some(node) => {
            let operator = super::refusal::quote(&node.op_type);
            Err(Refusal::new(SOURCE, format!("the runtime does not have operator {operator:?}")))
        }
    }
}

/// Loads a verified file. It takes a deep stack, see [`STACK_BYTES`].
///
/// # Errors
/// The file is no model, or one that does not fit what it is said to take and give, or one that the runtime cannot run.
pub fn load(
    bytes: Bytes,
    serving: &ServingConfig,
    takes: Takes<'_>,
    stages: &mut Stages,
) -> Result<TractEngine, Refusal> {
    let wanted = Wanted::new(serving, takes.pooling());
    let proto = timed(&mut stages.check, || graph::read(&bytes))?;
    // The decoded copy holds the weights now.
    drop(bytes);
    let feed = Feed::of(graph::graph(&proto)?, takes)?;
    let source = timed(&mut stages.parse, || Source::parse(&proto, feed, &wanted))?;
    drop(proto);
    let parts = Parts { serving, wanted };
    let shared = timed(&mut stages.optimise, || parts.shared(source))?;
    Ok(TractEngine { shared: Arc::new(shared) })
}

/// Runs several shapes.
fn try_shapes(shared: &Shared) -> Result<(), String> {
    for rows in shared.feed.trials() {
        let rows: Vec<&Row> = rows.iter().collect();
        match shared.run(&rows) {
            Ok(_) | Err(RunError::Dimensions(_)) => {}
            Err(RunError::Runtime(words)) => return Err(words),
        }
    }
    Ok(())
}

fn cannot_run(words: &str) -> Refusal {
    Refusal::new(SOURCE, format!("the runtime cannot run the model: {words}"))
}

#[cfg(test)]
mod test_onnx;
#[cfg(test)]
mod tests;
