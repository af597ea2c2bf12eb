//! What becomes of an input before it is computed.

use embark_crds::contract::{ImageInput, TensorInput};

use super::{
    engine::{Row, RowData},
    image::ImagePreparer,
    tokenizer::Tokenizer,
};
use crate::{
    error::{Error, ErrorKind},
    input::Input,
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

    /// The row of an input; `prefix` is put before texts.
    ///
    /// # Errors
    /// The tokenizer cannot read the text, the image is none, or the input is of a kind that the model does not take.
    pub fn prepare(&self, prefix: &str, input: &Input) -> Result<Row, Error> {
        match (self, input) {
            (Preparer::Text(tokenizer), Input::Text(text)) => {
                tokenizer.encode(prefix, text.as_str())
            }
            (Preparer::Image(images), Input::Image(image)) => images.prepare(image.as_bytes()),
            (Preparer::Tensor { .. }, Input::Tensor(tensor)) => {
                Ok(Row { data: RowData::Tensor(tensor.as_bytes().clone()), truncated: false })
            }
            _ => Err(Error::new(ErrorKind::ItemKind, "the model takes another kind of input")),
        }
    }

    /// A row of so many tokens, to try a model with; an image and a tensor have one length.
    pub fn sample(&self, length: u32) -> Row {
        match self {
            Preparer::Text(tokenizer) => {
                let ids = tokenizer.facts().sample.iter().copied();
                Row::of_tokens(ids.cycle().take(length.max(1) as usize).collect())
            }
            Preparer::Image(images) => Self::zeros(images.row_bytes()),
            Preparer::Tensor { bytes } => Self::zeros(*bytes),
        }
    }

    /// Bytes that an input holds while it waits to be computed: its own, or its row's where that is larger.
    pub fn waiting_bytes(&self, input: &Input) -> usize {
        match self {
            Preparer::Image(images) => input.size().max(images.row_bytes()),
            Preparer::Text(_) | Preparer::Tensor { .. } => input.size(),
        }
    }

    /// The length of the longest row that it makes.
    pub fn longest(&self) -> u32 {
        match self {
            Preparer::Text(tokenizer) => tokenizer.max_tokens(),
            Preparer::Image(_) | Preparer::Tensor { .. } => 1,
        }
    }

    fn zeros(bytes: usize) -> Row {
        Row { data: RowData::Tensor(vec![0; bytes].into()), truncated: false }
    }
}
