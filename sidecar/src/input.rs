//! Requests as the use case knows them: checked once at the edge, not checked again below.

mod image_url;

use std::time::Duration;

use bytes::Bytes;
use embark_crds::contract::OnMiss;

pub use self::image_url::{ImageUrl, MAX_URL_BYTES, URL_FIELD, no_urls};
use crate::{error::Error, trace::Trace};

/// A batch of inputs for one model.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The inputs, in the caller's order.
    pub items: Vec<Item>,
    /// The prompt's name; `None`: the model's default.
    pub prompt: Option<String>,
    /// How many values of each vector; `None`: the model's default.
    pub dimensions: Option<u32>,
    /// The space that the caller's other vectors are of.
    pub expect_space_id: Option<String>,
    /// What is done about items that are not cached.
    pub wishes: Wishes,
    /// How long the answer may take; then it is given with what is there. `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// The trace that its stages are of.
    pub trace: Trace,
}

/// One item of a batch: an input, or why it is none.
pub type Item = Result<Input, Error>;

/// What an item is computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text.
    Text(Text),
    /// An image.
    Image(Image),
    /// An image that is to be fetched.
    ImageUrl(ImageUrl),
    /// A tensor.
    Tensor(Tensor),
    /// A category.
    Category(Category),
}

/// What a caller asks for beyond the model's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What to do with an item that is not cached; `None`: what the policy says.
    pub on_miss: Option<OnMiss>,
    /// How long to wait before the default vector is given.
    pub wait_budget: Option<Duration>,
    /// Which entries count, and whether new ones are made.
    pub cache: CacheControl,
    /// Who goes first.
    pub class: Class,
}

/// Tightens the model's policy for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// No entry counts, and no computation that began before the request.
    pub no_cache: bool,
    /// What is computed for this request alone is not kept.
    pub no_store: bool,
    /// Nothing is computed.
    pub only_if_cached: bool,
    /// An older entry, or older computation, does not count.
    pub max_age: Option<Duration>,
}

/// Who goes first where work waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Waiting,
    /// Bulk requests, and what is computed behind an answer that was given: only when nothing is waited for.
    Background,
}

/// A text: UTF-8, not empty, within the model's limit. A slice of the request's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Bytes);

/// The bytes of an image's file, within the model's limit; whether they are an image is found out when it is prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(Bytes);

/// A tensor of the model's own shape and element type: its values, little-endian and row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor(Bytes);

/// A category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Category {
    /// By its id: UTF-8, not empty, within the limit. Whether the vocabulary has it is found out by the model's preparer.
    Id(Bytes),
    /// Any id that the vocabulary does not have. They are one input: callers may make up any number of such ids, and none
    /// of them is to take room of its own.
    Unknown,
}

// === impl Input ===

impl Input {
    /// The same in memory of its own: one that came with a request is a part of the request's frame.
    #[must_use]
    pub fn detached(&self) -> Self {
        match self {
            Input::Text(text) => Input::Text(Text(Bytes::copy_from_slice(&text.0))),
            Input::Image(image) => Input::Image(Image(Bytes::copy_from_slice(&image.0))),
            Input::ImageUrl(url) => Input::ImageUrl(url.clone()),
            Input::Tensor(tensor) => Input::Tensor(Tensor(Bytes::copy_from_slice(&tensor.0))),
            Input::Category(category) => Input::Category(category.detached()),
        }
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        match self {
            Input::Text(text) => text.0.len(),
            Input::Image(image) => image.0.len(),
            Input::ImageUrl(url) => url.as_str().len(),
            Input::Tensor(tensor) => tensor.0.len(),
            Input::Category(category) => category.as_bytes().len(),
        }
    }
}

// === impl Class ===

impl Class {
    /// Both, the first first.
    pub const ALL: [Class; 2] = [Class::Waiting, Class::Background];
}

// === impl Text ===

impl Text {
    /// Takes bytes as a text.
    ///
    /// # Errors
    /// They are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Text(bytes))
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }
}

// === impl Image ===

impl Image {
    /// Takes bytes whose number was checked as a file.
    pub fn from_file(bytes: Bytes) -> Self {
        Image(bytes)
    }

    /// The file's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

// === impl Tensor ===

impl Tensor {
    /// Takes bytes whose number was checked as values.
    pub fn from_le_bytes(bytes: Bytes) -> Self {
        Tensor(bytes)
    }

    /// The values' bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

// === impl Category ===

impl Category {
    /// Takes bytes whose number was checked as an id.
    ///
    /// # Errors
    /// They are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Category::Id(bytes))
    }

    /// The id's bytes; none of an unknown one.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Category::Id(id) => id,
            Category::Unknown => &[],
        }
    }

    fn detached(&self) -> Self {
        match self {
            Category::Id(id) => Category::Id(Bytes::copy_from_slice(id)),
            Category::Unknown => Category::Unknown,
        }
    }
}
