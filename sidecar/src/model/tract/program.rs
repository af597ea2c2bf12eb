//! A model in the runtime: one plan for every shape where the model allows it, else a plan for each shape that is run.

use std::sync::Arc;

use parking_lot::Mutex;
use tract_onnx::{pb::GraphProto, prelude::*, tract_hir::infer::InferenceModelExt};

use super::{
    SOURCE,
    feed::Feed,
    graph,
    output::{Layout, Wanted},
    port::{Port, outputs},
};
use crate::model::refusal::{Refusal, contained, quote};

/// A plan, ready to run.
pub(super) type Plan = Arc<TypedRunnableModel>;

/// The stack of a thread that builds a plan: the optimiser recurses with the size of expressions, and a stack that
/// overflows ends the process.
pub(super) const STACK_BYTES: usize = 64 * 1024 * 1024;
/// The most plans that are kept.
const MAX_PLANS: usize = 16;
/// The most bytes of weights that the kept plans may hold; one plan is always kept.
const MAX_PLAN_BYTES: usize = 512 * 1024 * 1024;

/// A parsed model from which plans are built.
#[derive(Debug)]
pub(super) struct Source {
    model: InferenceModel,
    pub(super) feed: Feed,
    outputs: Vec<Port>,
    /// The place of the output that the manifest names.
    named: Option<usize>,
    weight_bytes: usize,
}

/// A plan and what was found of its output.
pub(super) struct Built {
    pub(super) plan: Plan,
    pub(super) layout: Layout,
    /// The output's name.
    pub(super) output: String,
}

/// Why no plan came about.
#[derive(Debug)]
pub(super) enum BuildError {
    /// The model and the manifest do not fit.
    Refused(Refusal),
    /// The runtime failed; another shape may do.
    Runtime(String),
}

/// Where a run finds its plan.
#[derive(Debug)]
pub(super) enum Program {
    /// One plan runs every shape.
    Any(Plan),
    /// Each shape has its own.
    Shapes(Box<PlanCache>),
}

/// Plans by shape, the last used last; bounded in number and bytes.
#[derive(Debug)]
pub(super) struct PlanCache {
    source: Source,
    dimensions: usize,
    pooling: Option<embark_crds::contract::Pooling>,
    plans: Mutex<Vec<((usize, usize), Plan)>>,
    /// Held while a plan is built, so that two threads do not build the same one.
    building: Mutex<()>,
}

// === impl Source ===

impl Source {
    /// Parses a checked graph.
    pub(super) fn parse(
        proto: &tract_onnx::pb::ModelProto,
        feed: Feed,
        wanted: &Wanted<'_>,
    ) -> Result<Self, Refusal> {
        let graph = graph::graph(proto)?;
        let outputs = outputs(graph);
        let named = wanted.named(&outputs)?;
        // Without it, names of intermediate shapes clash with the sizes that are run.
        let onnx = tract_onnx::onnx().with_ignore_value_info(true);
        check_operators(graph, wanted.name, &onnx)?;
        let model = contained(|| onnx.model_for_proto_model(proto));
        let model = model.unwrap_or_else(|panic| Err(TractError::msg(panic)));
        let model = model.map_err(|error| {
            let sentence = format!("the runtime cannot read the model: {}", words(&error));
            Refusal::new(SOURCE, sentence)
        })?;
        let weight_bytes = graph::weight_bytes(graph);
        Ok(Source { model, feed, outputs, named, weight_bytes })
    }

    /// A plan for any shape, except where the file fixes one.
    pub(super) fn build_any(&self, wanted: &Wanted<'_>) -> Result<Built, BuildError> {
        let size = |fixed: Option<usize>, name: &str| match fixed {
            Some(size) => size.to_dim(),
            None => self.model.new_sym_with_prefix(name).to_dim(),
        };
        let shapes = self.feed.shapes();
        let batch = size(shapes.batch, "batch");
        let sequence = size(shapes.sequence, "sequence");
        self.build([batch, sequence], wanted)
    }

    /// A plan for one shape.
    pub(super) fn build_for(
        &self,
        (batch, sequence): (usize, usize),
        wanted: &Wanted<'_>,
    ) -> Result<Built, BuildError> {
        self.build([batch.to_dim(), sequence.to_dim()], wanted)
    }

    fn build(&self, shape: [TDim; 2], wanted: &Wanted<'_>) -> Result<Built, BuildError> {
        let chosen = contained(|| self.typed(&shape, wanted)).map_err(BuildError::Runtime)?;
        let (model, at, layout) = chosen?;
        let plan = contained(|| model.into_optimized()?.into_runnable());
        let plan = plan.map_err(BuildError::Runtime)?.map_err(BuildError::of)?;
        Ok(Built { plan, layout, output: self.outputs[at].name.clone() })
    }

    /// The typed model with the embedding as its only output, and that output's place.
    fn typed(
        &self,
        shape: &[TDim; 2],
        wanted: &Wanted<'_>,
    ) -> Result<(TypedModel, usize, Layout), BuildError> {
        let mut model = self.model.clone();
        for (at, fact) in self.feed.facts(shape).into_iter().enumerate() {
            model.set_input_fact(at, fact).map_err(BuildError::of)?;
        }
        if let Some(at) = self.named {
            // Before it is analysed, so that what only other outputs need cannot fail.
            let outlets = model.output_outlets().map_err(BuildError::of)?;
            let outlet = outlets[at];
            model.select_output_outlets(&[outlet]).map_err(BuildError::of)?;
        }
        let mut model = model.into_typed().map_err(BuildError::of)?;
        let outlets = model.output_outlets().map_err(BuildError::of)?.to_vec();
        let facts: Result<Vec<_>, _> = outlets.iter().map(|o| model.outlet_fact(*o)).collect();
        let facts = facts.map_err(BuildError::of)?;
        let (place, port) = match self.named {
            Some(at) => (0, at),
            None => wanted.choose(&self.outputs, &facts).map(|at| (at, at))?,
        };
        let layout = wanted.check(&self.outputs[port], facts[place])?;
        model.select_output_outlets(&[outlets[place]]).map_err(BuildError::of)?;
        Ok((model, port, layout))
    }
}

// === impl Program ===

impl Program {
    /// The plan for a shape.
    ///
    /// # Errors
    /// The runtime's words, when it cannot make one.
    pub(super) fn plan(&self, shape: (usize, usize)) -> Result<Plan, String> {
        match self {
            Program::Any(plan) => Ok(plan.clone()),
            Program::Shapes(cache) => cache.plan(shape),
        }
    }
}

// === impl PlanCache ===

impl PlanCache {
    /// A cache that holds a first plan.
    pub(super) fn new(source: Source, wanted: &Wanted<'_>, first: ((usize, usize), Plan)) -> Self {
        PlanCache {
            source,
            dimensions: wanted.dimensions,
            pooling: wanted.pooling,
            plans: Mutex::new(vec![first]),
            building: Mutex::new(()),
        }
    }

    fn plan(&self, shape: (usize, usize)) -> Result<Plan, String> {
        if let Some(plan) = self.kept(shape) {
            return Ok(plan);
        }
        let _alone = self.building.lock();
        if let Some(plan) = self.kept(shape) {
            return Ok(plan);
        }
        let plan = self.build(shape)?;
        let mut plans = self.plans.lock();
        plans.push((shape, plan.clone()));
        let beyond = plans.len().saturating_sub(self.limit());
        plans.drain(..beyond);
        Ok(plan)
    }

    fn kept(&self, shape: (usize, usize)) -> Option<Plan> {
        let mut plans = self.plans.lock();
        let at = plans.iter().position(|(kept, _)| *kept == shape)?;
        let kept = plans.remove(at);
        let plan = kept.1.clone();
        plans.push(kept);
        Some(plan)
    }

    fn build(&self, shape: (usize, usize)) -> Result<Plan, String> {
        let wanted = Wanted { name: None, dimensions: self.dimensions, pooling: self.pooling };
        let built = on_big_stack(|| self.source.build_for(shape, &wanted))?;
        built.map(|built| built.plan).map_err(|error| match error {
            BuildError::Refused(refusal) => refusal.to_string(),
            BuildError::Runtime(words) => words,
        })
    }

    #[cfg(test)]
    pub(super) fn kept_plans(&self) -> usize {
        self.plans.lock().len()
    }

    /// The most plans that are kept. A plan may hold its own packed copy of every weight.
    fn limit(&self) -> usize {
        (MAX_PLAN_BYTES / self.source.weight_bytes.max(1)).clamp(1, MAX_PLANS)
    }
}

// === impl BuildError ===

impl BuildError {
    fn of(error: TractError) -> Self {
        BuildError::Runtime(words(&error))
    }
}

impl From<Refusal> for BuildError {
    fn from(refusal: Refusal) -> Self {
        BuildError::Refused(refusal)
    }
}

// === free functions ===

/// Runs `work` on a thread of its own with a stack for the optimiser.
pub(super) fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("embark-plan".to_owned());
        let thread = thread.stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("no thread could be started: {error}"))?;
        thread.join().map_err(|_| "the thread that built a plan panicked".to_owned())
    })
}

/// The runtime's words, short: what it was doing, and the reason at the bottom.
pub(super) fn words(error: &TractError) -> String {
    const SHOWN: usize = 100;
    let cut = |words: String| match words.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    };
    let chain: Vec<String> = error.chain().map(|cause| cut(quote(cause))).collect();
    match chain.as_slice() {
        [first, .., last] => format!("{first}: {last}"),
        _ => chain.concat(),
    }
}

fn check_operators(
    graph: &GraphProto,
    named: Option<&str>,
    onnx: &tract_onnx::Onnx,
) -> Result<(), Refusal> {
    let all: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let wanted = named.map_or(all, |name| vec![name]);
    let known = |operator: &str| onnx.op_register.0.contains_key(operator);
    match graph::unknown_operator(graph, &wanted, known) {
        None => Ok(()),
        Some(node) => {
            let domain = if node.domain.is_empty() { "ai.onnx" } else { &node.domain };
            let sentence = format!(
                "the model needs operator {:?} of {:?} (node {:?}), which the runtime does not have",
                quote(&node.op_type),
                quote(domain),
                quote(&node.name)
            );
            Err(Refusal::new(SOURCE, sentence))
        }
    }
}
