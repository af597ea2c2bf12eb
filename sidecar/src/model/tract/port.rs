//! A model's inputs and outputs as its file declares them, and what each input is for.

use std::fmt;

use tract_onnx::pb::{
    GraphProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension::Value,
    type_proto,
};

use super::SOURCE;
use crate::model::refusal::{Refusal, quote};

/// The most rows that a file may fix a run to.
const MAX_FIXED_BATCH: usize = 1024;
/// The most tokens that a file may fix a row to.
const MAX_FIXED_SEQUENCE: usize = 128 * 1024;

/// An input or output: its name, element type and shape.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    kind: Option<DataType>,
    dims: Option<Vec<Dim>>,
}

/// One axis of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dim {
    Fixed(i64),
    Free(String),
}

/// What an input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Token ids.
    Ids,
    /// 1 for a token, 0 for padding.
    Mask,
    /// Which of two texts a token is of; always 0.
    Types,
}

/// How an input is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) role: Role,
    /// int64; otherwise int32.
    pub(super) wide: bool,
}

/// The model's inputs, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) slots: Vec<Slot>,
    /// The name of the input of token ids.
    pub(super) ids: String,
    /// Rows of a run, where the file fixes them.
    pub(super) batch: Option<usize>,
    /// Tokens of a row, where the file fixes them.
    pub(super) sequence: Option<usize>,
}

// === impl Inputs ===

impl Inputs {
    /// What each input of the graph is for.
    pub(super) fn of(graph: &GraphProto) -> Result<Self, Refusal> {
        let ports = inputs(graph);
        let refuse = |why: &str| {
            let sentence = format!(
                "the model's inputs must be token ids and, where it has them, an attention mask and token types, \
                 each int32 or int64 [batch, sequence]; {why}; its inputs: {}",
                list(&ports)
            );
            Err(Refusal::new(SOURCE, sentence))
        };
        let mut found =
            Inputs { slots: Vec::new(), ids: String::new(), batch: None, sequence: None };
        for port in &ports {
            let wide = match port.kind {
                Some(DataType::Int64) => true,
                Some(DataType::Int32) => false,
                _ => return refuse(&format!("{:?} is not of integers", quote(&port.name))),
            };
            let role = if ports.len() == 1 { Some(Role::Ids) } else { Role::of(&port.name) };
            let Some(role) = role else {
                return refuse(&format!("{:?} is none of these", quote(&port.name)));
            };
            if found.slots.iter().any(|slot| slot.role == role) {
                return refuse(&format!("{:?} could be the same as another", quote(&port.name)));
            }
            if role == Role::Ids {
                found.ids.clone_from(&port.name);
            }
            found.slots.push(Slot { role, wide });
            if let Err(why) = found.fix(port) {
                return refuse(&why);
            }
        }
        if !found.has(Role::Ids) {
            return refuse("none of them is the token ids");
        }
        Ok(found)
    }

    /// Whether there is an input of this role.
    pub(super) fn has(&self, role: Role) -> bool {
        self.slots.iter().any(|slot| slot.role == role)
    }

    /// Takes the sizes that the file fixes for a port.
    fn fix(&mut self, port: &Port) -> Result<(), String> {
        let Some(dims) = &port.dims else { return Ok(()) };
        let [batch, sequence] = dims.as_slice() else {
            return Err(format!("{:?} has {} axes", quote(&port.name), dims.len()));
        };
        let axes = [
            (batch, &mut self.batch, MAX_FIXED_BATCH),
            (sequence, &mut self.sequence, MAX_FIXED_SEQUENCE),
        ];
        for (dim, fixed, most) in axes {
            let &Dim::Fixed(size) = dim else { continue };
            let size = usize::try_from(size).ok().filter(|size| (1..=most).contains(size));
            let Some(size) = size else {
                return Err(format!("{:?} has an axis beyond 1 to {most}", quote(&port.name)));
            };
            if fixed.is_some_and(|other| other != size) {
                return Err(format!("{:?} has another shape than the others", quote(&port.name)));
            }
            *fixed = Some(size);
        }
        Ok(())
    }
}

// === impl Role ===

impl Role {
    /// What an input of this name is for, by the names that exporters use.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if has(&["position", "past", "cache", "decoder", "pixel"]) {
            None
        } else if has(&["mask"]) {
            Some(Role::Mask)
        } else if has(&["type", "segment"]) {
            Some(Role::Types)
        } else if has(&["id", "token", "input", "word"]) {
            Some(Role::Ids)
        } else {
            None
        }
    }
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

// === free functions ===

/// The graph's outputs.
pub(super) fn outputs(graph: &GraphProto) -> Vec<Port> {
    graph.output.iter().map(Port::of).collect()
}

/// The graph's inputs that are not constants of the file.
fn inputs(graph: &GraphProto) -> Vec<Port> {
    let given = graph.input.iter();
    let given =
        given.filter(|input| graph.initializer.iter().all(|tensor| tensor.name != input.name));
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
