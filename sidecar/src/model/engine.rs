//! What a runtime of models must do. The rest of the sidecar knows engines by this trait alone.

use bytes::Bytes;

use crate::{embedding::Embedding, error::Error};

/// One input, prepared: what a run reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The values.
    pub data: RowData,
    /// Whether the input was cut to the model's length.
    pub truncated: bool,
}

/// The values of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowData {
    /// Token ids, special ones included; at least one, at most the model's `maxTokens`.
    Tokens(Vec<u32>),
    /// A tensor of the model's shape, or an image as one, little-endian and row-major.
    Tensor(Bytes),
    /// The row of a category in the model's table.
    Index(u32),
}

/// How many threads a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The one that it is called on.
    One,
    /// As many as there are cores: nothing else is to be computed.
    All,
}

/// Runs a model.
pub trait Engine: Send {
    /// The vectors of `rows`, in their order, each of the model's full dimensions and normalised as the model asks. A row
    /// whose vector is not finite fails alone.
    ///
    /// # Errors
    /// The runtime refused the whole run.
    fn run(
        &mut self,
        rows: &[&Row],
        threads: Threads,
    ) -> Result<Vec<Result<Embedding, Error>>, Error>;

    /// Whether rows of different lengths may share a run.
    fn mixes_lengths(&self) -> bool;

    /// Another engine of the same model, for another thread; weights are shared.
    fn fork(&self) -> Box<dyn Engine>;
}

// === impl Row ===

impl Row {
    /// The row of token ids.
    pub fn of_tokens(ids: Vec<u32>) -> Self {
        Row { data: RowData::Tokens(ids), truncated: false }
    }

    /// What it costs a run: its tokens; anything else costs 1.
    pub fn length(&self) -> u32 {
        u32::try_from(self.tokens().len()).unwrap_or(u32::MAX).max(1)
    }

    /// Its token ids; none when it is no text.
    pub fn tokens(&self) -> &[u32] {
        match &self.data {
            RowData::Tokens(ids) => ids,
            RowData::Tensor(_) | RowData::Index(_) => &[],
        }
    }
}
