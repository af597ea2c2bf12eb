//! Rows of values that follow each other in the one input of a model: what images and tensors have in common.

use std::iter;

use embark_crds::contract::TensorDtype;
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

/// Operators that take several times as long when the number of rows is left open.
const CONVOLUTIONS: [&str; 4] = ["Conv", "ConvTranspose", "ConvInteger", "QLinearConv"];
/// The most bytes that the rows of one run may have. Larger runs gain nothing, and one row is always run.
const MAX_RUN_BYTES: usize = 64 * 1024 * 1024;

/// An input of such rows.
#[derive(Clone, Debug)]
pub(in super::super) struct Values {
    /// What a row is called.
    noun: &'static str,
    dtype: TensorDtype,
    /// The shape of one row.
    shape: Vec<usize>,
    /// Rows of a run, where they are fixed.
    batch: Option<usize>,
}

// === impl Values ===

impl Values {
    /// Rows of this type and shape; `fixed`: the rows that the file fixes a run to.
    pub(super) fn of(
        graph: &GraphProto,
        noun: &'static str,
        (dtype, shape): (TensorDtype, Vec<usize>),
        fixed: Option<usize>,
    ) -> Self {
        let alone = graph::has_operator(graph, &CONVOLUTIONS).then_some(1);
        Values { noun, dtype, shape, batch: fixed.or(alone) }
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
            TensorDtype::Uint8 => Tensor::from_shape(&shape, &bytes),
            TensorDtype::Int8 => tensor(&shape, &bytes, i8::from_le_bytes),
            TensorDtype::Bool => tensor(&shape, &bytes, |[byte]| byte != 0),
        }?;
        Ok(tvec![tensor.into_tvalue()])
    }

    /// A row of zeros everywhere.
    pub(in super::super) fn zeros(&self) -> Row {
        Row { data: RowData::Tensor(vec![0; self.row_bytes()].into()), truncated: false }
    }

    /// A row of ones everywhere.
    pub(in super::super) fn ones(&self) -> Row {
        match self.dtype {
            TensorDtype::Float32 => self.all(&1.0_f32.to_le_bytes()),
            TensorDtype::Float64 => self.all(&1.0_f64.to_le_bytes()),
            TensorDtype::Int32 => self.all(&1_i32.to_le_bytes()),
            TensorDtype::Int64 => self.all(&1_i64.to_le_bytes()),
            TensorDtype::Uint8 | TensorDtype::Int8 | TensorDtype::Bool => self.all(&[1]),
        }
    }

    /// A row of the highest values of a plain image everywhere.
    pub(in super::super) fn highest(&self) -> Row {
        match self.dtype {
            TensorDtype::Uint8 => self.all(&[u8::MAX]),
            _ => self.ones(),
        }
    }

    /// A row of one value everywhere, by its bytes.
    fn all(&self, value: &[u8]) -> Row {
        Row { data: RowData::Tensor(value.repeat(self.values()).into()), truncated: false }
    }

    fn other_row(&self) -> TractError {
        TractError::msg(format!("a row is not {} of shape {:?}", self.noun, self.shape))
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

/// The graph's one input, which is said to take `what`, of the type that `field` says.
pub(super) fn one_input(
    graph: &GraphProto,
    what: &str,
    (field, dtype): (&str, TensorDtype),
) -> Result<Port, Refusal> {
    let mut ports = inputs(graph);
    let port = match ports.pop() {
        Some(port) if ports.is_empty() => port,
        last => {
            ports.extend(last);
            let ports = list(&ports);
            let sentence = format!("the model must have one input, {what}; its inputs: {ports}");
            return Err(Refusal::new(SOURCE, sentence));
        }
    };
    if port.kind != Some(onnx_type(dtype)) {
        let sentence = format!(
            "{dtype:?}, but the model's file has input {port}; it must be the input's element type"
        );
        return Err(Refusal::new(field, sentence));
    }
    Ok(port)
}

/// Whether the axes behind the batch may have these sizes.
pub(super) fn fits(axes: &[Dim], shape: &[usize]) -> bool {
    let same = |(dim, axis): (&Dim, &usize)| match dim {
        Dim::Fixed(size) => usize::try_from(*size).is_ok_and(|size| size == *axis),
        Dim::Free(_) => true,
    };
    axes.len() == shape.len() && axes.iter().zip(shape).all(same)
}

/// The rows that a file fixes a run to.
pub(super) fn fixed_rows(port: &Port, batch: &Dim) -> Result<Option<usize>, Refusal> {
    let refuse = |why| Refusal::new(SOURCE, format!("input {:?} {why}", quote(&port.name)));
    batch.fixed(MAX_FIXED_BATCH).map_err(refuse)
}

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
