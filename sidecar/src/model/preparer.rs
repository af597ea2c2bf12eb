//! What becomes of an input before it is computed.

use embark_crds::contract::{ImageInput, TensorInput};

use super::{
    engine::{Row, RowData},
    image::ImagePreparer,
    tokenizer::Tokenizer,
    vocabulary::{UNKNOWN_ROW, Vocabulary},
};
use crate::{
    error::{Error, ErrorKind},
    input::{Category, Input},
};

/// Makes rows of inputs. It is shared between threads.
#[derive(Debug)]
pub enum Preparer {
    /// Text becomes tokens.
    Text(Box<Tokenizer>),
    /// An image is decoded and made to fit.
    Image(Box<ImagePreparer>),
    /// A tensor is read as it is.
    Tensor {
        /// Bytes of one.
        bytes: usize,
    },
    /// A category becomes its row in a table.
    Category(Box<Vocabulary>),
}

/// What a run reads of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// At least one; more are the windows of a long text, whose vectors are averaged.
    pub rows: Vec<Row>,
    /// Whether the input is not in the vocabulary.
    pub unknown_category: bool,
}

// === impl Preparer ===

impl Preparer {
    /// What reads the tensors of a model.
    pub fn of_tensors(input: &TensorInput) -> Self {
        let values: u64 = input.shape.iter().map(|axis| u64::from(*axis)).product();
        let bytes = usize::try_from(values * input.dtype.size()).unwrap_or(usize::MAX);
        Preparer::Tensor { bytes }
    }

    /// What reads the images of a model.
    pub fn of_images(input: &ImageInput) -> Self {
        Preparer::Image(Box::new(ImagePreparer::new(input)))
    }

    /// The input that stands for all that have its vector, by which it is known to the cache.
    pub fn canonical(&self, input: Input) -> Input {
        match (self, &input) {
            (Preparer::Category(vocabulary), Input::Category(Category::Id(id)))
                if vocabulary.row(id).is_none() =>
            {
                Input::Category(Category::Unknown)
            }
            _ => input,
        }
    }

    /// The rows of an input; `prefix` is put before texts.
    ///
    /// # Errors
    /// The tokenizer cannot read the text, the image is none, or the input is of a kind that the model does not take.
    pub fn prepare(&self, prefix: &str, input: &Input) -> Result<Prepared, Error> {
        match (self, input) {
            (Preparer::Text(tokenizer), Input::Text(text)) => {
                let rows = tokenizer.rows(prefix, text.as_str())?;
                Ok(Prepared { rows, unknown_category: false })
            }
            (Preparer::Image(images), Input::Image(image)) => {
                images.prepare(image.as_bytes()).map(Prepared::from)
            }
            (Preparer::Tensor { .. }, Input::Tensor(tensor)) => {
                let data = RowData::Tensor(tensor.as_bytes().clone());
                Ok(Row { data, truncated: false }.into())
            }
            (Preparer::Category(vocabulary), Input::Category(category)) => {
                let row = match category {
                    Category::Id(id) => vocabulary.row(id),
                    Category::Unknown => None,
                };
                let data = RowData::Index(row.unwrap_or(UNKNOWN_ROW));
                let rows = vec![Row { data, truncated: false }];
                Ok(Prepared { rows, unknown_category: row.is_none() })
            }
            _ => Err(Error::new(ErrorKind::ItemKind, "the model takes another kind of input")),
        }
    }

    /// A row of so many tokens, to try a model with; everything else has one length.
    pub fn sample(&self, length: u32) -> Row {
        match self {
            Preparer::Text(tokenizer) => {
                let ids = tokenizer.facts().sample.iter().copied();
                Row::of_tokens(ids.cycle().take(length.max(1) as usize).collect())
            }
            Preparer::Image(images) => Self::zeros(images.row_bytes()),
            Preparer::Tensor { bytes } => Self::zeros(*bytes),
            Preparer::Category(_) => Row { data: RowData::Index(UNKNOWN_ROW), truncated: false },
        }
    }

    /// Bytes that an input holds while it waits to be computed: its own, or its row's where that is larger. A URL has no row
    /// until it is fetched.
    pub fn waiting_bytes(&self, input: &Input) -> usize {
        match self {
            Preparer::Image(_) if matches!(input, Input::ImageUrl(_)) => input.size(),
            Preparer::Image(images) => input.size().max(images.row_bytes()),
            Preparer::Text(_) | Preparer::Tensor { .. } | Preparer::Category(_) => input.size(),
        }
    }

    /// The length of the longest row that it makes.
    pub fn longest(&self) -> u32 {
        match self {
            Preparer::Text(tokenizer) => tokenizer.max_tokens(),
            Preparer::Image(_) | Preparer::Tensor { .. } | Preparer::Category(_) => 1,
        }
    }

    fn zeros(bytes: usize) -> Row {
        Row { data: RowData::Tensor(vec![0; bytes].into()), truncated: false }
    }
}

// === impl Prepared ===

impl From<Row> for Prepared {
    fn from(row: Row) -> Self {
        Prepared { rows: vec![row], unknown_category: false }
    }
}
