//! Tensors: one input of the manifest's element type, in which rows follow each other.

use std::iter;

use embark_crds::contract::{TensorDtype, TensorInput};
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
    dtype: TensorDtype,
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
                "the model must have one input, a tensor [batch, …]; its inputs: {}",
                list(&ports)
            );
            return Err(Refusal::new(SOURCE, sentence));
        };
        if port.kind != Some(onnx_type(input.dtype)) {
            let sentence = format!(
                "{:?}, but the model's file has input {port}; it must be the input's element type",
                input.dtype
            );
            return Err(Refusal::new(DTYPE, sentence));
        }
        let shape: Vec<usize> = input.shape.iter().map(|axis| *axis as usize).collect();
        let fixed = fixed_batch(port, &shape)?;
        let alone = graph::has_operator(graph, &CONVOLUTIONS).then_some(1);
        Ok(TensorFeed { shape, dtype: input.dtype, batch: fixed.or(alone) })
    }

    /// See [`Feed::shapes`](super::Feed::shapes). A row is one position, whatever its shape.
    pub(super) fn shapes(&self) -> Shapes {
        let most = (MAX_RUN_BYTES / self.row_bytes().max(1)).max(1);
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
        vec![InferenceFact::dt_shape(datum_type(self.dtype), shape)]
    }

    /// See [`Feed::tensors`](super::Feed::tensors). What fills a run up is zero.
    pub(super) fn tensors(&self, rows: &[&Row], cut: &Cut) -> TractResult<TVec<TValue>> {
        let mut bytes = Vec::with_capacity(cut.batch * self.row_bytes());
        for row in rows {
            match &row.data {
                RowData::Tensor(row) if row.len() == self.row_bytes() => {
                    bytes.extend_from_slice(row)
                }
                _ => return Err(self.other_row()),
            }
        }
        bytes.resize(cut.batch * self.row_bytes(), 0);
        let shape: Vec<usize> = iter::once(cut.batch).chain(self.shape.iter().copied()).collect();
        let tensor = match self.dtype {
            TensorDtype::Float32 => tensor(&shape, &bytes, f32::from_le_bytes),
            TensorDtype::Float64 => tensor(&shape, &bytes, f64::from_le_bytes),
            TensorDtype::Int32 => tensor(&shape, &bytes, i32::from_le_bytes),
            TensorDtype::Int64 => tensor(&shape, &bytes, i64::from_le_bytes),
            TensorDtype::Uint8 => tensor(&shape, &bytes, u8::from_le_bytes),
            TensorDtype::Int8 => tensor(&shape, &bytes, i8::from_le_bytes),
            TensorDtype::Bool => tensor(&shape, &bytes, |[byte]| byte != 0),
        }?;
        Ok(tvec![tensor.into_tvalue()])
    }

    /// A row of zeros, or of ones, everywhere.
    pub(in super::super) fn of_all(&self, ones: bool) -> Row {
        let one: &[u8] = match self.dtype {
            TensorDtype::Float32 => &1.0_f32.to_le_bytes(),
            TensorDtype::Float64 => &1.0_f64.to_le_bytes(),
            TensorDtype::Int32 => &1_i32.to_le_bytes(),
            TensorDtype::Int64 => &1_i64.to_le_bytes(),
            TensorDtype::Uint8 | TensorDtype::Int8 | TensorDtype::Bool => &[1],
        };
        let bytes = if ones { one.repeat(self.values()) } else { vec![0; self.row_bytes()] };
        Row { data: RowData::Tensor(bytes.into()), truncated: false }
    }

    fn other_row(&self) -> TractError {
        TractError::msg(format!("a row is not a tensor of shape {:?}", self.shape))
    }

    /// Values of a row.
    fn values(&self) -> usize {
        self.shape.iter().product()
    }

    fn row_bytes(&self) -> usize {
        self.values() * usize::try_from(self.dtype.size()).unwrap_or(1)
    }
}

// === free functions ===

/// The tensor of these values.
fn tensor<T: Datum + Copy, const N: usize>(
    shape: &[usize],
    bytes: &[u8],
    value: impl Fn([u8; N]) -> T,
) -> TractResult<Tensor> {
    let values: Vec<T> = bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect();
    Tensor::from_shape(shape, &values)
}

fn onnx_type(dtype: TensorDtype) -> DataType {
    match dtype {
        TensorDtype::Float32 => DataType::Float,
        TensorDtype::Float64 => DataType::Double,
        TensorDtype::Int32 => DataType::Int32,
        TensorDtype::Int64 => DataType::Int64,
        TensorDtype::Uint8 => DataType::Uint8,
        TensorDtype::Int8 => DataType::Int8,
        TensorDtype::Bool => DataType::Bool,
    }
}

fn datum_type(dtype: TensorDtype) -> DatumType {
    match dtype {
        TensorDtype::Float32 => f32::datum_type(),
        TensorDtype::Float64 => f64::datum_type(),
        TensorDtype::Int32 => i32::datum_type(),
        TensorDtype::Int64 => i64::datum_type(),
        TensorDtype::Uint8 => u8::datum_type(),
        TensorDtype::Int8 => i8::datum_type(),
        TensorDtype::Bool => bool::datum_type(),
    }
}

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
