//! What is checked of an ONNX file before the runtime sees it: that it is one, that it holds its own data, that no size in
//! it asks for memory that the file does not account for, and that every operator is known.

use std::collections::{HashMap, HashSet};

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataLocation,
    tensor_proto::DataType,
};

use super::SOURCE;
use crate::model::refusal::{Refusal, quote};

/// The most nodes of a graph. The largest text models in use have a tenth of it.
const MAX_NODES: usize = 200_000;
/// The most values of a constant that an operator makes out of a shape.
const MAX_FILLED_VALUES: u64 = 1 << 28;

/// The constants of a graph, by name.
struct Constants<'a> {
    tensors: HashMap<&'a str, &'a TensorProto>,
    /// What turns weights of few bits into floats, by what it makes.
    unpacked: HashMap<&'a str, &'a NodeProto>,
}

// === impl Constants ===

impl<'a> Constants<'a> {
    fn of(graph: &'a GraphProto) -> Self {
        let (mut tensors, mut unpacked) = (HashMap::new(), HashMap::new());
        for node in &graph.node {
            let Some(made) = node.output.first() else { continue };
            match node.op_type.as_str() {
                "Constant" => {
                    let value = node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
                    tensors.extend(value.map(|value| (made.as_str(), value)));
                }
                "Cast" | "DequantizeLinear" | "Identity" => {
                    unpacked.insert(made.as_str(), node);
                }
                _ => {}
            }
        }
        tensors.extend(graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)));
        Constants { tensors, unpacked }
    }

    fn get(&self, name: &str) -> Option<&'a TensorProto> {
        self.tensors.get(name).copied()
    }

    /// The constant that a name stands for, also behind some steps that leave its shape as it is.
    fn table(&self, name: &str) -> Option<&'a TensorProto> {
        const STEPS: usize = 4;
        let mut name = name;
        for _ in 0..STEPS {
            if let Some(found) = self.get(name) {
                return Some(found);
            }
            name = self.unpacked.get(name)?.input.first()?;
        }
        None
    }
}

// === free functions ===

/// Reads and checks a file.
pub(super) fn read(bytes: &[u8]) -> Result<ModelProto, Refusal> {
    let not_onnx =
        |why: String| Refusal::new(SOURCE, format!("the file is not an ONNX model: {why}"));
    let proto = ModelProto::decode(bytes).map_err(|error| not_onnx(quote(error)))?;
    let Some(graph) = &proto.graph else { return Err(not_onnx("it has no graph".to_owned())) };
    if graph.output.is_empty() {
        return Err(not_onnx("its graph has no output".to_owned()));
    }
    check_graph(graph)?;
    check_outputs(graph)?;
    Ok(proto)
}

/// The graph of a file that was read.
pub(super) fn graph(proto: &ModelProto) -> Result<&GraphProto, Refusal> {
    proto.graph.as_ref().ok_or_else(|| Refusal::new(SOURCE, "the file has no graph"))
}

/// The first operator that `wanted` outputs need and the runtime does not know.
pub(super) fn unknown_operator<'a>(
    graph: &'a GraphProto,
    wanted: &[&str],
    known: impl Fn(&str) -> bool,
) -> Option<&'a NodeProto> {
    let mut makers: HashMap<&str, &NodeProto> = HashMap::new();
    for node in &graph.node {
        makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
    }
    let mut names: Vec<&str> = wanted.to_vec();
    let mut seen: HashSet<&str> = HashSet::new();
    while let Some(name) = names.pop() {
        if !seen.insert(name) {
            continue;
        }
        let Some(&node) = makers.get(name) else { continue };
        let mut bodies = vec![node];
        while let Some(body) = bodies.pop() {
            if !known(&body.op_type) {
                return Some(body);
            }
            names.extend(body.input.iter().map(String::as_str));
            bodies.extend(body.attribute.iter().flat_map(subgraphs).flat_map(|g| &g.node));
        }
    }
    None
}

/// Rows of the smallest table that is looked up by the ids of the input `ids`; `None`: no lookup was recognised.
pub(super) fn embedding_rows(graph: &GraphProto, ids: &str) -> Option<u64> {
    let constants = Constants::of(graph);
    let mut same: HashSet<&str> = HashSet::from([ids]);
    let mut rows: Option<u64> = None;
    // Nodes stand in the order in which they run.
    for node in &graph.node {
        let input = |at: usize| node.input.get(at).map(String::as_str);
        match node.op_type.as_str() {
            "Gather" if input(1).is_some_and(|name| same.contains(name)) => {
                let axis = node.attribute.iter().find(|a| a.name == "axis").map_or(0, |a| a.i);
                let table = input(0).and_then(|name| constants.table(name));
                let found = table.and_then(|table| axis_length(table, axis));
                rows = [rows, found].into_iter().flatten().min();
            }
            // What it is multiplied with has as many rows; beyond them it gives zeros in place of a failure.
            "OneHot" if input(0).is_some_and(|name| same.contains(name)) => {
                let depth = input(1).and_then(|name| constants.get(name));
                let found = depth.and_then(|depth| integers(depth).first().copied());
                let found = found.and_then(|depth| u64::try_from(depth).ok());
                rows = [rows, found].into_iter().flatten().min();
            }
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten"
                if input(0).is_some_and(|name| same.contains(name)) =>
            {
                same.extend(node.output.first().map(String::as_str));
            }
            _ => {}
        }
    }
    rows
}

/// Whether a node of the graph, or of one nested in it, is one of these operators.
pub(super) fn has_operator(graph: &GraphProto, operators: &[&str]) -> bool {
    graph.node.iter().any(|node| {
        operators.contains(&node.op_type.as_str())
            || node.attribute.iter().flat_map(subgraphs).any(|body| has_operator(body, operators))
    })
}

/// Bytes of every constant of the graph.
pub(super) fn weight_bytes(graph: &GraphProto) -> usize {
    graph.initializer.iter().map(Message::encoded_len).sum()
}

fn axis_length(table: &TensorProto, axis: i64) -> Option<u64> {
    let rank = i64::try_from(table.dims.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    u64::try_from(*table.dims.get(axis)?).ok()
}

fn subgraphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

/// Checks every tensor and node, those of nested graphs too. The decoder bounds how deep they nest.
fn check_graph(graph: &GraphProto) -> Result<(), Refusal> {
    if graph.node.len() > MAX_NODES {
        let sentence =
            format!("the model has {} nodes, at most {MAX_NODES} are allowed", graph.node.len());
        return Err(Refusal::new(SOURCE, sentence));
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    let sparse = graph.sparse_initializer.iter();
    sparse.flat_map(|s| s.values.iter().chain(&s.indices)).try_for_each(check_tensor)?;
    let constants = Constants::of(graph);
    for node in &graph.node {
        check_filled(&constants, node)?;
        for attribute in &node.attribute {
            attribute.t.iter().chain(&attribute.tensors).try_for_each(check_tensor)?;
            let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            sparse.flat_map(|s| s.values.iter().chain(&s.indices)).try_for_each(check_tensor)?;
            subgraphs(attribute).try_for_each(check_graph)?;
        }
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), Refusal> {
    let name = quote(&tensor.name);
    let external = tensor.data_location == Some(DataLocation::External as i32);
    if external || !tensor.external_data.is_empty() {
        let sentence = format!(
            "tensor {name:?} keeps its data in another file; export the model as one file, with its data inside"
        );
        return Err(Refusal::new(SOURCE, sentence));
    }
    let refuse = |why: &str| {
        let dims = quote(format!("{:?}", tensor.dims));
        Err(Refusal::new(SOURCE, format!("tensor {name:?} of shape {dims} {why}")))
    };
    let Some(values) = product(&tensor.dims) else {
        return refuse("has a shape that no tensor can have");
    };
    match held(tensor) {
        Some((held, unit)) if values.checked_mul(unit) != Some(held) => {
            refuse("is not as large as the data that the file holds for it")
        }
        // Types that the runtime does not know are refused by it; a byte a value is the least that any takes.
        None if values > tensor.encoded_len() as u64 * 8 => {
            refuse("is larger than the data that the file holds for it")
        }
        _ => Ok(()),
    }
}

/// What the file holds for a tensor, and how much of that one value takes; `None`: a type that is not measured.
fn held(tensor: &TensorProto) -> Option<(u64, u64)> {
    let kind = DataType::try_from(tensor.data_type).ok()?;
    let (unit, listed) = match kind {
        DataType::Float => (4, tensor.float_data.len()),
        DataType::Double => (8, tensor.double_data.len()),
        DataType::Int64 => (8, tensor.int64_data.len()),
        DataType::Uint64 => (8, tensor.uint64_data.len()),
        DataType::Int32 => (4, tensor.int32_data.len()),
        DataType::Uint32 => (4, tensor.uint64_data.len()),
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => {
            (2, tensor.int32_data.len())
        }
        DataType::Int8 | DataType::Uint8 | DataType::Bool => (1, tensor.int32_data.len()),
        DataType::String => (1, tensor.string_data.len()),
        _ => return None,
    };
    match tensor.raw_data.len() {
        0 => Some((listed as u64, 1)),
        raw => Some((raw as u64, unit)),
    }
}

/// Operators that fill a tensor of a given shape: a few bytes can ask for any amount of memory.
fn check_filled(constants: &Constants<'_>, node: &NodeProto) -> Result<(), Refusal> {
    let shape = match node.op_type.as_str() {
        "ConstantOfShape" => node.input.first(),
        "Expand" | "Tile" => node.input.get(1),
        _ => None,
    };
    let Some(shape) = shape.and_then(|name| constants.get(name)) else { return Ok(()) };
    let values = product(&integers(shape).into_iter().map(|n| n.max(1)).collect::<Vec<_>>());
    if values.is_some_and(|values| values <= MAX_FILLED_VALUES) {
        return Ok(());
    }
    let sentence = format!(
        "node {:?} ({}) makes a tensor of more than {MAX_FILLED_VALUES} values",
        quote(&node.name),
        quote(&node.op_type)
    );
    Err(Refusal::new(SOURCE, sentence))
}

fn integers(tensor: &TensorProto) -> Vec<i64> {
    if tensor.data_type == DataType::Int32 as i32 {
        let four = tensor.raw_data.as_chunks().0.iter();
        let raw = four.map(|bytes| i64::from(i32::from_le_bytes(*bytes)));
        return raw.chain(tensor.int32_data.iter().map(|value| i64::from(*value))).collect();
    }
    if tensor.raw_data.is_empty() {
        return tensor.int64_data.clone();
    }
    let eight = tensor.raw_data.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
    eight.map(i64::from_le_bytes).collect()
}

/// The number of values of a shape; `None`: a negative dimension or more than can be counted.
fn product(dims: &[i64]) -> Option<u64> {
    if dims.contains(&0) && dims.iter().all(|&dim| dim >= 0) {
        return Some(0);
    }
    dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(u64::try_from(dim).ok()?))
}

fn check_outputs(graph: &GraphProto) -> Result<(), Refusal> {
    let made = graph.node.iter().flat_map(|node| &node.output);
    let given = graph.input.iter().map(|input| &input.name);
    let constants = graph.initializer.iter().map(|tensor| &tensor.name);
    let names: HashSet<&String> = made.chain(given).chain(constants).collect();
    match graph.output.iter().find(|output| !names.contains(&output.name)) {
        None => Ok(()),
        Some(output) => {
            let sentence =
                format!("output {:?} is made by no node of the model", quote(&output.name));
            Err(Refusal::new(SOURCE, sentence))
        }
    }
}
