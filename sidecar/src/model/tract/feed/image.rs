//! Images: one input of pixels, in which rows follow each other.

use std::iter;

use bytes::Bytes;
use embark_crds::contract::{ImageDtype, ImageInput, Layout};
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
use super::tensor::{CONVOLUTIONS, MAX_RUN_BYTES};
use crate::model::{
    engine::{Row, RowData},
    refusal::{Refusal, quote},
};

/// The field of the element type.
const DTYPE: &str = "spec.input.image.dtype";
/// The field of the order of axes.
const LAYOUT: &str = "spec.input.image.layout";
/// The field of the sizes.
const IMAGE: &str = "spec.input.image";
/// Colours of a pixel.
const COLOURS: usize = 3;

/// The input of a model of images.
#[derive(Clone, Debug)]
pub(in super::super) struct ImageFeed {
    dtype: ImageDtype,
    /// The shape of one row.
    shape: [usize; 3],
    /// Rows of a run, where they are fixed.
    batch: Option<usize>,
}

// === impl ImageFeed ===

impl ImageFeed {
    /// Checks the graph's one input against the manifest.
    pub(super) fn of(graph: &GraphProto, input: &ImageInput) -> Result<Self, Refusal> {
        let ports = inputs(graph);
        let [port] = ports.as_slice() else {
            let sentence = format!(
                "the model must have one input, pixels of uint8 or float; its inputs: {}",
                list(&ports)
            );
            return Err(Refusal::new(SOURCE, sentence));
        };
        let kind = match input.dtype {
            ImageDtype::Uint8 => DataType::Uint8,
            ImageDtype::Float32 => DataType::Float,
        };
        if port.kind != Some(kind) {
            let sentence = format!(
                "{:?}, but the model's file has input {port}; it must be the input's element type",
                input.dtype
            );
            return Err(Refusal::new(DTYPE, sentence));
        }
        let shape = shape(input, input.layout);
        let fixed = fixed_batch(port, input)?;
        let alone = graph::has_operator(graph, &CONVOLUTIONS).then_some(1);
        Ok(ImageFeed { dtype: input.dtype, shape, batch: fixed.or(alone) })
    }

    /// See [`Feed::shapes`](super::Feed::shapes). A row is one position.
    pub(super) fn shapes(&self) -> Shapes {
        Shapes {
            batch: self.batch,
            sequence: Some(1),
            masked: false,
            bucketed: false,
            longest: 1,
            most: (MAX_RUN_BYTES / self.row_bytes()).max(1),
        }
    }

    /// See [`Feed::facts`](super::Feed::facts).
    pub(super) fn facts(&self, [batch, _]: &[TDim; 2]) -> Vec<InferenceFact> {
        let kind = match self.dtype {
            ImageDtype::Uint8 => u8::datum_type(),
            ImageDtype::Float32 => f32::datum_type(),
        };
        let shape = iter::once(batch.clone()).chain(self.shape.iter().map(|axis| axis.to_dim()));
        vec![InferenceFact::dt_shape(kind, shape)]
    }

    /// See [`Feed::tensors`](super::Feed::tensors). What fills a run up is zero.
    pub(super) fn tensors(&self, rows: &[&Row], cut: &Cut) -> TractResult<TVec<TValue>> {
        let mut bytes = Vec::with_capacity(cut.batch * self.row_bytes());
        for row in rows {
            match &row.data {
                RowData::Tensor(row) if row.len() == self.row_bytes() => {
                    bytes.extend_from_slice(row);
                }
                _ => return Err(self.other_row()),
            }
        }
        bytes.resize(cut.batch * self.row_bytes(), 0);
        let shape: Vec<usize> = iter::once(cut.batch).chain(self.shape).collect();
        let tensor = match self.dtype {
            ImageDtype::Uint8 => Tensor::from_shape(&shape, &bytes)?,
            ImageDtype::Float32 => {
                let (floats, _) = bytes.as_chunks();
                let floats: Vec<f32> = floats.iter().map(|f| f32::from_le_bytes(*f)).collect();
                Tensor::from_shape(&shape, &floats)?
            }
        };
        Ok(tvec![tensor.into_tvalue()])
    }

    /// A row of one value everywhere: zero, or the highest of a plain image.
    pub(in super::super) fn of_all(&self, high: bool) -> Row {
        let values = self.shape.iter().product();
        let bytes: Bytes = match self.dtype {
            ImageDtype::Uint8 => vec![if high { u8::MAX } else { 0 }; values].into(),
            ImageDtype::Float32 => {
                let value: f32 = if high { 1.0 } else { 0.0 };
                iter::repeat_n(value.to_le_bytes(), values).flatten().collect()
            }
        };
        Row { data: RowData::Tensor(bytes), truncated: false }
    }

    fn other_row(&self) -> TractError {
        TractError::msg(format!("a row is not an image of shape {:?}", self.shape))
    }

    fn row_bytes(&self) -> usize {
        let value = match self.dtype {
            ImageDtype::Uint8 => 1,
            ImageDtype::Float32 => size_of::<f32>(),
        };
        self.shape.iter().product::<usize>() * value
    }
}

// === free functions ===

/// The shape of one row in an order of axes.
fn shape(input: &ImageInput, layout: Layout) -> [usize; 3] {
    let (width, height) = (input.width as usize, input.height as usize);
    match layout {
        Layout::Nhwc => [height, width, COLOURS],
        Layout::Nchw => [COLOURS, height, width],
    }
}

/// The rows that a file fixes a run to, when its input has the manifest's shape behind them.
fn fixed_batch(port: &Port, input: &ImageInput) -> Result<Option<usize>, Refusal> {
    let Some(dims) = &port.dims else { return Ok(None) };
    let refuse = |field: &str, sentence: String| Err(Refusal::new(field, sentence));
    let Some((batch, axes)) = dims.split_first().filter(|(_, axes)| axes.len() == 3) else {
        let sentence = format!(
            "the model's input must be pixels of four axes, the first of them the batch; its input: {port}"
        );
        return refuse(SOURCE, sentence);
    };
    let fits = |layout: Layout| {
        let same = |(dim, axis): (&Dim, usize)| match dim {
            Dim::Fixed(size) => usize::try_from(*size).is_ok_and(|size| size == axis),
            Dim::Free(_) => true,
        };
        axes.iter().zip(shape(input, layout)).all(same)
    };
    if fits(input.layout) {
        let name = quote(&port.name);
        return batch
            .fixed(MAX_FIXED_BATCH)
            .map_err(|why| Refusal::new(SOURCE, format!("input {name:?} {why}")));
    }
    let (given, other) = match input.layout {
        Layout::Nhwc => ("NHWC", Layout::Nchw),
        Layout::Nchw => ("NCHW", Layout::Nhwc),
    };
    if fits(other) {
        let sentence =
            format!("{given}, but the model's file has input {port}; it must be its order of axes");
        return refuse(LAYOUT, sentence);
    }
    let sentence = format!(
        "{} pixels across and {} down in {given}, but the model's file has input {port}; they must be its sizes",
        input.width, input.height
    );
    refuse(IMAGE, sentence)
}
