//! How rows become the tensors that a model reads: one way for each kind of input.
//!
//! The rest of the runtime knows shapes, facts and tensors; what they are made of is decided here alone.

mod category;
mod image;
mod tensor;
mod text;
mod values;

use embark_crds::contract::{ImageInput, Pooling, TensorInput, TextInput};
use tract_onnx::{pb::GraphProto, prelude::*};

use super::cut::{Cut, Shapes};
use crate::model::{engine::Row, refusal::Refusal, tokenizer::TokenizerFacts};

pub(super) use category::CategoryFeed;
pub(super) use text::{MAX_TOKENS, TOKENIZER, TextFeed};
pub(super) use values::Values;

/// What the rows of a model are made from.
#[derive(Clone, Copy, Debug)]
pub enum Takes<'a> {
    /// Texts, by a tokenizer.
    Text {
        /// What the manifest says of them.
        input: &'a TextInput,
        /// What the tokenizer makes of them.
        tokenizer: &'a TokenizerFacts,
    },
    /// Images.
    Image(&'a ImageInput),
    /// Tensors.
    Tensor(&'a TensorInput),
    /// Categories, of so many ids.
    Category(u32),
}

/// How rows are fed to a model.
#[derive(Clone, Debug)]
pub(super) enum Feed {
    /// Token ids, with a mask and token types where the model has inputs for them.
    Text(TextFeed),
    /// One tensor of pixels, in which rows follow each other.
    Image(Values),
    /// One tensor, in which rows follow each other.
    Tensor(Values),
    /// Rows of a table.
    Category(CategoryFeed),
}

// === impl Takes ===

impl Takes<'_> {
    /// How the tokens of a text become one vector; `None`: there are no tokens.
    pub(super) fn pooling(&self) -> Option<Pooling> {
        match self {
            Takes::Text { input, .. } => Some(input.pooling),
            Takes::Image(_) | Takes::Tensor(_) | Takes::Category(_) => None,
        }
    }
}

// === impl Feed ===

impl Feed {
    /// How the graph's inputs are fed.
    ///
    /// # Errors
    /// The inputs do not fit what the model is said to take.
    pub(super) fn of(graph: &GraphProto, takes: Takes<'_>) -> Result<Self, Refusal> {
        match takes {
            Takes::Text { input, tokenizer } => {
                TextFeed::of(graph, input, tokenizer).map(Feed::Text)
            }
            Takes::Image(input) => image::of(graph, input).map(Feed::Image),
            Takes::Tensor(input) => tensor::of(graph, input).map(Feed::Tensor),
            Takes::Category(ids) => CategoryFeed::of(graph, ids).map(Feed::Category),
        }
    }

    /// The shapes that are run when one plan runs them all.
    pub(super) fn shapes(&self) -> Shapes {
        match self {
            Feed::Text(feed) => feed.shapes(),
            Feed::Image(feed) | Feed::Tensor(feed) => feed.shapes(),
            Feed::Category(feed) => feed.shapes(),
        }
    }

    /// Element type and shape of every input, for runs of one shape: rows, and positions of each.
    pub(super) fn facts(&self, shape: &[TDim; 2]) -> Vec<InferenceFact> {
        match self {
            Feed::Text(feed) => feed.facts(shape),
            Feed::Image(feed) | Feed::Tensor(feed) => feed.facts(shape),
            Feed::Category(feed) => feed.facts(shape),
        }
    }

    /// The tensors of a run, one for each input.
    pub(super) fn tensors(&self, rows: &[&Row], cut: &Cut) -> TractResult<TVec<TValue>> {
        match self {
            Feed::Text(feed) => feed.tensors(rows, cut),
            Feed::Image(feed) | Feed::Tensor(feed) => feed.tensors(rows, cut),
            Feed::Category(feed) => feed.tensors(rows, cut),
        }
    }

    /// The positions of a row such as most are.
    pub(super) fn usual_length(&self) -> usize {
        match self {
            Feed::Text(feed) => feed.tokenizer.sample.len(),
            Feed::Image(_) | Feed::Tensor(_) | Feed::Category(_) => 1,
        }
    }

    /// Runs of several shapes, of neutral rows: some models build for any shape and then run for one.
    pub(super) fn trials(&self) -> [Vec<Row>; 2] {
        match self {
            Feed::Text(feed) => [vec![feed.neutral(3)], vec![feed.neutral(7); 2]],
            Feed::Image(feed) | Feed::Tensor(feed) => [vec![feed.zeros()], vec![feed.zeros(); 3]],
            Feed::Category(feed) => [vec![feed.unknown()], vec![feed.unknown(); 3]],
        }
    }
}
