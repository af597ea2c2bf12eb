//! Tensors: one input of the manifest's element type and shape.

use embark_crds::contract::TensorInput;
use tract_onnx::pb::GraphProto;

use super::{
    super::port::Port,
    values::{Values, fits, fixed_rows, one_input},
};
use crate::model::refusal::Refusal;

/// The field of the shape.
const SHAPE: &str = "spec.input.tensor.shape";
/// The field of the element type.
const DTYPE: &str = "spec.input.tensor.dtype";

/// Checks the graph's one input against the manifest.
pub(super) fn of(graph: &GraphProto, input: &TensorInput) -> Result<Values, Refusal> {
    let port = one_input(graph, "a tensor [batch, …]", (DTYPE, input.dtype))?;
    let shape: Vec<usize> = input.shape.iter().map(|axis| *axis as usize).collect();
    let fixed = fixed_batch(&port, &shape)?;
    Ok(Values::of(graph, "a tensor", (input.dtype, shape), fixed))
}

/// The rows that a file fixes a run to, when its input has that shape behind them.
fn fixed_batch(port: &Port, shape: &[usize]) -> Result<Option<usize>, Refusal> {
    let Some(dims) = &port.dims else { return Ok(None) };
    match dims.split_first() {
        Some((batch, axes)) if fits(axes, shape) => fixed_rows(port, batch),
        _ => {
            let sentence = format!(
                "{shape:?}, but the model's file has input {port}; it must be the axes behind the first, which is the batch"
            );
            Err(Refusal::new(SHAPE, sentence))
        }
    }
}
