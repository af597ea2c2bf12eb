//! Tensors: one input of floats, in which rows follow each other.

use std::iter;

use embark_crds::contract::TensorInput;
use tract_onnx::{
    pb::{GraphProto, tensor_proto::DataType},
    prelude::*,
};

use super::super::{
    SOURCE,
    cut::{Cut, Shapes},
    graph,
    port::{Dim, MAX_FIXED_BATCH, Port, inputs, list},
};
use crate::model::{
    engine::{Row, RowData},
    refusal::{Refusal, quote},
};

/// The field of the shape.
const SHAPE: &str = "spec.input.tensor.shape";
/// The field of the element type.
const DTYPE: &str = "spec.input.tensor.dtype";
/// Operators that take several times as long when the number of rows is left open.
pub(super) const CONVOLUTIONS: [&str; 4] = ["Conv", "ConvTranspose", "ConvInteger", "QLinearConv"];
/// The most bytes that the rows of one run may have. Larger runs gain nothing, and one row is always run.
pub(super) const MAX_RUN_BYTES: usize = 64 * 1024 * 1024;

/// The input of a model of tensors.
#[derive(Clone, Debug)]
pub(in super::super) struct TensorFeed {
    /// The shape of one row.
    shape: Vec<usize>,
    /// Rows of a run, where they are fixed.
    batch: Option<usize>,
}

// === impl TensorFeed ===

impl TensorFeed {
    /// Checks the graph's one input against the manifest.
    pub(super) fn of(graph: &GraphProto, input: &TensorInput) -> Result<Self, Refusal> {
        let ports = inputs(graph);
        let [port] = ports.as_slice() else {
            let sentence = format!(
                "the model must have one input, a tensor of floats [batch, …]; its inputs: {}",
                list(&ports)
            );
            return Err(Refusal::new(SOURCE, sentence));
        };
        if port.kind != Some(DataType::Float) {
            let sentence = format!(
                "Float32, but the model's file has input {port}; it must be the input's element type"
            );
            return Err(Refusal::new(DTYPE, sentence));
        }
        let shape: Vec<usize> = input.shape.iter().map(|axis| *axis as usize).collect();
        let fixed = fixed_batch(port, &shape)?;
        let alone = graph::has_operator(graph, &CONVOLUTIONS).then_some(1);
        Ok(TensorFeed { shape, batch: fixed.or(alone) })
    }

    /// See [`Feed::shapes`](super::Feed::shapes). A row is one position, whatever its shape.
    pub(super) fn shapes(&self) -> Shapes {
        let most = (MAX_RUN_BYTES / (self.values() * size_of::<f32>()).max(1)).max(1);
        Shapes {
            batch: self.batch,
            sequence: Some(1),
            masked: false,
            bucketed: false,
            longest: 1,
            most,
        }
    }

    /// See [`Feed::facts`](super::Feed::facts).
    pub(super) fn facts(&self, [batch, _]: &[TDim; 2]) -> Vec<InferenceFact> {
        let shape = iter::once(batch.clone()).chain(self.shape.iter().map(|axis| axis.to_dim()));
        vec![InferenceFact::dt_shape(f32::datum_type(), shape)]
    }

    /// See [`Feed::tensors`](super::Feed::tensors). What fills a run up is zero.
    pub(super) fn tensors(&self, rows: &[&Row], cut: &Cut) -> TractResult<TVec<TValue>> {
        let size = self.values();
        let mut values = Vec::with_capacity(cut.batch * size);
        for row in rows {
            let bytes = match &row.data {
                RowData::Tensor(bytes) if bytes.len() == size * size_of::<f32>() => bytes,
                _ => return Err(self.other_row()),
            };
            let (floats, _) = bytes.as_chunks();
            values.extend(floats.iter().map(|float| f32::from_le_bytes(*float)));
        }
        values.resize(cut.batch * size, 0.0);
        let shape: Vec<usize> = iter::once(cut.batch).chain(self.shape.iter().copied()).collect();
        Ok(tvec![Tensor::from_shape(&shape, &values)?.into_tvalue()])
    }

    /// A row of one value everywhere.
    pub(in super::super) fn of_all(&self, value: f32) -> Row {
        let bytes = iter::repeat_n(value.to_le_bytes(), self.values()).flatten();
        Row { data: RowData::Tensor(bytes.collect()), truncated: false }
    }

    fn other_row(&self) -> TractError {
        TractError::msg(format!("a row is not a tensor of shape {:?}", self.shape))
    }

    /// Values of a row.
    fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

// === free functions ===

/// The rows that a file fixes a run to, when its input has that shape behind them.
fn fixed_batch(port: &Port, shape: &[usize]) -> Result<Option<usize>, Refusal> {
    let Some(dims) = &port.dims else { return Ok(None) };
    let same = |(dim, axis): (&Dim, &usize)| match dim {
        Dim::Fixed(size) => usize::try_from(*size).is_ok_and(|size| size == *axis),
        Dim::Free(_) => true,
    };
    match dims.split_first() {
        Some((batch, axes)) if axes.len() == shape.len() && axes.iter().zip(shape).all(same) => {
            batch
                .fixed(MAX_FIXED_BATCH)
                .map_err(|why| Refusal::new(SOURCE, format!("input {:?} {why}", quote(&port.name))))
        }
        _ => {
            let sentence = format!(
                "{shape:?}, but the model's file has input {port}; it must be the axes behind the first, which is the batch"
            );
            Err(Refusal::new(SHAPE, sentence))
        }
    }
}
