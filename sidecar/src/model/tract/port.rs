//! A model's inputs and outputs as its file declares them.

use std::{collections::HashSet, fmt};

use tract_onnx::pb::{
    GraphProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension::Value,
    type_proto,
};

use crate::model::refusal::quote;

/// The most rows that a file may fix a run to.
pub(super) const MAX_FIXED_BATCH: usize = 1024;

/// An input or output: its name, element type and shape.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) kind: Option<DataType>,
    pub(super) dims: Option<Vec<Dim>>,
}

/// One axis of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    Fixed(i64),
    Free(String),
}

// === impl Port ===

impl Port {
    fn of(info: &ValueInfoProto) -> Self {
        let kind = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
        let tensor = kind.map(|type_proto::Value::TensorType(tensor)| tensor);
        let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
            let dims = shape.dim.iter().map(|dim| match &dim.value {
                Some(Value::DimValue(size)) => Dim::Fixed(*size),
                Some(Value::DimParam(name)) => Dim::Free(quote(name)),
                None => Dim::Free("?".to_owned()),
            });
            dims.collect()
        });
        let kind = tensor.and_then(|tensor| DataType::try_from(tensor.elem_type).ok());
        Port { name: info.name.clone(), kind, dims }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("of no tensor type", |kind| kind.as_str_name());
        write!(f, "{:?} {}", quote(&self.name), kind.to_lowercase())?;
        let Some(dims) = &self.dims else { return Ok(()) };
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        write!(f, " [{}]", quote(dims.join(", ")))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => size.fmt(f),
            Dim::Free(name) => name.fmt(f),
        }
    }
}

// === impl Dim ===

impl Dim {
    /// The size that the file fixes; `None`: it fixes none.
    ///
    /// # Errors
    /// It is not in 1 to `most`.
    pub(super) fn fixed(&self, most: usize) -> Result<Option<usize>, String> {
        let &Dim::Fixed(size) = self else { return Ok(None) };
        match usize::try_from(size).ok().filter(|size| (1..=most).contains(size)) {
            Some(size) => Ok(Some(size)),
            None => Err(format!("has an axis beyond 1 to {most}")),
        }
    }
}

// === free functions ===

/// The graph's outputs.
pub(super) fn outputs(graph: &GraphProto) -> Vec<Port> {
    graph.output.iter().map(Port::of).collect()
}

/// The graph's inputs that are not constants of the file.
pub(super) fn inputs(graph: &GraphProto) -> Vec<Port> {
    let constants: HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let given = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
    given.map(Port::of).collect()
}

/// The ports for a sentence: the first few of them.
pub(super) fn list(ports: &[Port]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = ports.iter().take(SHOWN).map(ToString::to_string).collect();
    if ports.len() > SHOWN {
        names.push(format!("and {} more", ports.len() - SHOWN));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
