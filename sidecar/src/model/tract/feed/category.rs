//! Categories: one input of integers, a row of the model's table for each.

use tract_onnx::{
    pb::{GraphProto, tensor_proto::DataType},
    prelude::*,
};

use super::super::{
    SOURCE,
    cut::{Cut, Shapes},
    graph,
    port::{Dim, MAX_FIXED_BATCH, inputs, list},
};
use crate::model::{
    engine::{Row, RowData},
    refusal::{Refusal, quote},
    vocabulary::{UNKNOWN_ROW, VOCABULARY},
};

/// The input of a model of categories.
#[derive(Clone, Debug)]
pub(in super::super) struct CategoryFeed {
    /// int64; otherwise int32.
    wide: bool,
    /// Whether a row is a list of one number, not a number.
    boxed: bool,
    /// Rows of a run, where the file fixes them.
    batch: Option<usize>,
    /// The row of the vocabulary's last id.
    pub(in super::super) last: u32,
}

// === impl CategoryFeed ===

impl CategoryFeed {
    /// Checks the graph's one input, and the table that it is looked up in against the number of ids.
    pub(super) fn of(graph: &GraphProto, ids: u32) -> Result<Self, Refusal> {
        let ports = inputs(graph);
        let refuse = |why: &str| {
            let sentence = format!(
                "the model must have one input, rows of its table, int32 or int64 [batch] or [batch, 1]; {why}its \
                 inputs: {}",
                list(&ports)
            );
            Err(Refusal::new(SOURCE, sentence))
        };
        let [port] = ports.as_slice() else { return refuse("") };
        let wide = match port.kind {
            Some(DataType::Int64) => true,
            Some(DataType::Int32) => false,
            _ => return refuse(""),
        };
        let (batch, boxed) = match port.dims.as_deref() {
            None => (None, false),
            Some([batch]) => (Some(batch), false),
            Some([batch, Dim::Fixed(1) | Dim::Free(_)]) => (Some(batch), true),
            Some(_) => return refuse(""),
        };
        let batch = match batch.map(|batch| batch.fixed(MAX_FIXED_BATCH)).transpose() {
            Ok(batch) => batch.flatten(),
            Err(why) => return refuse(&format!("{:?} {why}; ", quote(&port.name))),
        };
        match graph::embedding_rows(graph, &port.name) {
            Some(rows) if rows <= u64::from(ids) => {
                let sentence = format!(
                    "does not fit the model: it has {ids} ids, which with the row of unknown ids are {} rows, but \
                     the model's table has {rows}",
                    u64::from(ids) + 1
                );
                Err(Refusal::new(VOCABULARY, sentence))
            }
            _ => Ok(CategoryFeed { wide, boxed, batch, last: ids }),
        }
    }

    /// See [`Feed::shapes`](super::Feed::shapes).
    pub(super) fn shapes(&self) -> Shapes {
        Shapes {
            batch: self.batch,
            sequence: Some(1),
            masked: false,
            bucketed: false,
            longest: 1,
            most: usize::MAX,
        }
    }

    /// See [`Feed::facts`](super::Feed::facts).
    pub(super) fn facts(&self, [batch, _]: &[TDim; 2]) -> Vec<InferenceFact> {
        let kind = if self.wide { i64::datum_type() } else { i32::datum_type() };
        let shape: TVec<TDim> =
            if self.boxed { tvec![batch.clone(), 1.to_dim()] } else { tvec![batch.clone()] };
        vec![InferenceFact::dt_shape(kind, shape)]
    }

    /// See [`Feed::tensors`](super::Feed::tensors). What fills a run up is the row of unknown ids.
    pub(super) fn tensors(&self, rows: &[&Row], cut: &Cut) -> TractResult<TVec<TValue>> {
        let mut values = Vec::with_capacity(cut.batch);
        for row in rows {
            let RowData::Index(index) = &row.data else {
                return Err(TractError::msg("a row is not that of a category"));
            };
            values.push(i64::from(*index));
        }
        values.resize(cut.batch, i64::from(UNKNOWN_ROW));
        let shape: &[usize] = if self.boxed { &[cut.batch, 1] } else { &[cut.batch] };
        let tensor = Tensor::from_shape(shape, &values)?;
        let tensor = if self.wide { tensor } else { tensor.cast_to::<i32>()?.into_owned() };
        Ok(tvec![tensor.into_tvalue()])
    }

    /// The row of unknown ids.
    pub(in super::super) fn unknown(&self) -> Row {
        Self::row(UNKNOWN_ROW)
    }

    /// The row of the last id.
    pub(in super::super) fn last_row(&self) -> Row {
        Self::row(self.last)
    }

    fn row(index: u32) -> Row {
        Row { data: RowData::Index(index), truncated: false }
    }
}
