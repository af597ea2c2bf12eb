//! What a runtime of models must do. The rest of the sidecar knows engines by this trait alone.

use crate::{embedding::Embedding, error::Error};

/// One text, tokenised: what a run reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids, special ones included; at least one, at most the model's `maxTokens`.
    pub ids: Vec<u32>,
    /// Whether tokens were cut off.
    pub truncated: bool,
}

/// Runs a model.
pub trait Engine: Send {
    /// The vectors of `rows`, in their order, each of the model's full dimensions and normalised as the model asks. A row
    /// whose vector is not finite fails alone.
    ///
    /// # Errors
    /// The runtime refused the whole run.
    fn run(&mut self, rows: &[Row]) -> Result<Vec<Result<Embedding, Error>>, Error>;

    /// Another engine of the same model, for another thread; weights are shared.
    fn fork(&self) -> Box<dyn Engine>;
}
