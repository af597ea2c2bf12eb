//! One run: rows to tensors, the plan, tensors to vectors.

use embark_crds::contract::{Normalization, Pooling};
use tract_onnx::prelude::*;

use super::{
    cut::{Cut, Shapes},
    feed::Feed,
    output::Layout,
    program::{Program, words},
};
use crate::{
    embedding::Embedding,
    error::Error,
    model::{
        engine::Row,
        pooling::{RowOutput, finish},
        refusal::contained,
    },
};

/// A loaded model, shared by every engine of it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) program: Program,
    pub(super) feed: Feed,
    pub(super) shapes: Shapes,
    /// The name of the output.
    pub(super) output: String,
    pub(super) layout: Layout,
    pub(super) dimensions: usize,
    pub(super) pooling: Pooling,
    pub(super) normalization: Normalization,
}

/// Why a run gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RunError {
    /// The runtime failed, or its output has another shape than its plan says.
    #[error("{0}")]
    Runtime(String),
    /// Vectors of another length than the manifest says.
    #[error("the model gave vectors of {0} values")]
    Dimensions(usize),
}

// === impl Shared ===

impl Shared {
    /// The vectors of `rows`, in their order.
    pub(super) fn run(&self, rows: &[&Row]) -> Result<Vec<Result<Embedding, Error>>, RunError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.tokens().len()).collect();
        let mut vectors: Vec<Option<Result<Embedding, Error>>> = vec![None; rows.len()];
        for cut in self.shapes.cuts(&lengths) {
            let values = self.run_cut(rows, &cut)?;
            let size = values.len() / cut.batch;
            for (place, &row) in cut.rows.iter().enumerate() {
                let values = &values[place * size..][..size];
                vectors[row] = Some(self.finish(values, rows[row]));
            }
        }
        // Every row is in one cut.
        Ok(vectors.into_iter().flatten().collect())
    }

    fn finish(&self, values: &[f32], row: &Row) -> Result<Embedding, Error> {
        let length = row.tokens().len();
        let output = RowOutput { values, dimensions: self.dimensions, tokens: length };
        let vector = finish(output, self.pooling, self.normalization)?;
        let tokens = u32::try_from(length).unwrap_or(u32::MAX);
        Ok(Embedding { vector, tokens, truncated: row.truncated })
    }

    /// The values of every row of a run.
    fn run_cut(&self, rows: &[&Row], cut: &Cut) -> Result<Vec<f32>, RunError> {
        let plan = self.program.plan((cut.batch, cut.sequence)).map_err(RunError::Runtime)?;
        let rows: Vec<&Row> = cut.rows.iter().map(|&row| rows[row]).collect();
        let ran = contained(|| {
            let outputs = plan.run(self.feed.tensors(&rows, cut)?)?;
            let output = outputs.first().ok_or_else(|| TractError::msg("no output"))?;
            let shape = output.shape().to_vec();
            let floats = output.cast_to::<f32>()?;
            let values = floats.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            TractResult::Ok((shape, values))
        });
        let ran = ran.map_err(RunError::Runtime)?;
        let (shape, values) = ran.map_err(|error| RunError::Runtime(words(&error)))?;
        self.check_shape(&shape, cut).map(|()| values)
    }

    fn check_shape(&self, shape: &[usize], cut: &Cut) -> Result<(), RunError> {
        let expected: &[usize] = match self.layout {
            Layout::Vectors if shape.len() == 4 => &[cut.batch, 1, 1],
            Layout::Vectors if shape.len() == 3 => &[cut.batch, 1],
            Layout::Vectors => &[cut.batch],
            Layout::Tokens => &[cut.batch, cut.sequence],
        };
        match shape.split_last() {
            Some((&size, axes)) if axes == expected && size == self.dimensions => Ok(()),
            Some((&size, axes)) if axes == expected => Err(RunError::Dimensions(size)),
            _ => Err(RunError::Runtime(format!(
                "the output has shape {shape:?}; before its last axis that must be {expected:?}"
            ))),
        }
    }
}
