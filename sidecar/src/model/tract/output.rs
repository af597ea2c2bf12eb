//! Which output of a model is the embedding, and what has to be made of it.

use embark_crds::contract::{Pooling, ServingConfig};
use tract_onnx::{prelude::*, tract_hir::internal::DimLike};

use super::{
    SOURCE,
    port::{Port, list},
};
use crate::model::refusal::{Refusal, quote};

/// The field that names an output.
const NAME: &str = "spec.model.output.name";
/// The field that says how long a vector is.
const DIMENSIONS: &str = "spec.model.output.dimensions";
/// The field that says how tokens become one vector.
const POOLING: &str = "spec.input.text.pooling";

/// The shape of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One vector a row.
    Vectors,
    /// One vector a token.
    Tokens,
}

/// What the manifest says of the output.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) dimensions: usize,
    /// `None`: the model's input is not made of tokens.
    pub(super) pooling: Option<Pooling>,
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    pub(super) fn new(serving: &'a ServingConfig, pooling: Option<Pooling>) -> Self {
        let dimensions = usize::try_from(serving.output.dimensions.get()).unwrap_or(usize::MAX);
        Wanted { name: serving.output.name.as_deref(), dimensions, pooling }
    }

    /// The place of the named output; `None`: none is named.
    pub(super) fn named(&self, ports: &[Port]) -> Result<Option<usize>, Refusal> {
        let Some(name) = self.name else { return Ok(None) };
        match ports.iter().position(|port| port.name == name) {
            Some(at) => Ok(Some(at)),
            None => {
                let sentence =
                    format!("{name:?} is no output of the model; its outputs: {}", list(ports));
                Err(Refusal::new(NAME, sentence))
            }
        }
    }

    /// The place of the one float output whose last dimension is fixed, among outputs of these facts.
    pub(super) fn choose(&self, ports: &[Port], facts: &[&TypedFact]) -> Result<usize, Refusal> {
        let floats = |fact: &TypedFact| fact.datum_type.is_float();
        let fixed = |fact: &TypedFact| last(fact).is_some();
        let all = facts.iter().enumerate();
        let sure: Vec<usize> =
            all.clone().filter(|(_, f)| floats(f) && fixed(f)).map(|(at, _)| at).collect();
        let maybe: Vec<usize> = all.filter(|(_, f)| floats(f)).map(|(at, _)| at).collect();
        match (sure.as_slice(), maybe.as_slice()) {
            ([one], _) | ([], [one]) => Ok(*one),
            ([], []) => {
                let sentence =
                    format!("the model has no float output; its outputs: {}", list(ports));
                Err(Refusal::new(SOURCE, sentence))
            }
            _ => {
                let sentence =
                    format!("must name the output that is the embedding, one of: {}", list(ports));
                Err(Refusal::new(NAME, sentence))
            }
        }
    }

    /// Checks the output's shape against the manifest, as far as the file says it.
    pub(super) fn check(&self, port: &Port, fact: &TypedFact) -> Result<Layout, Refusal> {
        if !fact.datum_type.is_float() {
            return Err(Refusal::new(NAME, format!("output {port} is not of floats")));
        }
        let shape = shape(fact);
        let name = quote(&port.name);
        let one = |axis: usize| fact.shape[axis].to_usize().is_ok_and(|size| size == 1);
        let layout = match fact.rank() {
            2 => Layout::Vectors,
            4 if one(1) && one(2) => Layout::Vectors,
            3 if self.pooling.is_some() => Layout::Tokens,
            3 if one(1) => Layout::Vectors,
            _ => {
                let allowed = match self.pooling {
                    None => {
                        "[batch, dimensions], [batch, 1, dimensions] or [batch, 1, 1, dimensions]"
                    }
                    Some(_) => {
                        "[batch, dimensions], [batch, 1, 1, dimensions] or [batch, tokens, dimensions]"
                    }
                };
                let sentence = format!("output {name:?} has shape {shape}; it must be {allowed}");
                return Err(Refusal::new(SOURCE, sentence));
            }
        };
        match (layout, self.pooling) {
            (Layout::Tokens, Some(Pooling::None)) => {
                let sentence = format!(
                    "None, but output {name:?} {shape} has a vector for each token; it must be Mean, CLS or LastToken"
                );
                return Err(Refusal::new(POOLING, sentence));
            }
            (
                Layout::Vectors,
                Some(pooling @ (Pooling::Mean | Pooling::Cls | Pooling::LastToken)),
            ) => {
                let pooling = pooling_name(pooling);
                let sentence = format!(
                    "{pooling}, but output {name:?} {shape} has one vector a row already; it must be None"
                );
                return Err(Refusal::new(POOLING, sentence));
            }
            _ => {}
        }
        match last(fact) {
            Some(size) if size != self.dimensions => {
                Err(other_dimensions(self.dimensions, &name, size))
            }
            _ => Ok(layout),
        }
    }
}

// === free functions ===

/// The refusal of a model that is said to give vectors of `dimensions` values, and gives `size`.
pub(super) fn other_dimensions(dimensions: usize, output: &str, size: usize) -> Refusal {
    Refusal::new(DIMENSIONS, format!("{dimensions}, but output {output:?} has {size}"))
}

fn last(fact: &TypedFact) -> Option<usize> {
    fact.shape.last().and_then(|dim| dim.to_usize().ok())
}

fn shape(fact: &TypedFact) -> String {
    let dims: Vec<String> = fact.shape.iter().map(|dim| dim.to_string()).collect();
    quote(format!("[{}]", dims.join(", ")))
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::None => "None",
        Pooling::Mean => "Mean",
        Pooling::Cls => "CLS",
        Pooling::LastToken => "LastToken",
    }
}
