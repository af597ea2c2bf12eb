//! Requests as the use case knows them: checked once at the edge, not checked again below.

/// A batch of texts for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The inputs, in the caller's order.
    pub texts: Vec<TextItem>,
    /// The prompt's name; `None`: the model's default.
    pub prompt: Option<String>,
    /// How many values of each vector; `None`: the model's default.
    pub dimensions: Option<u32>,
    /// The space that the caller's other vectors are of.
    pub expect_space_id: Option<String>,
}

/// One input of a batch: a text, or why it is none.
pub type TextItem = Result<Text, crate::error::Error>;

/// A text: UTF-8, not empty, within the model's limit. A slice of the request's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(bytes::Bytes);

// === impl Text ===

impl Text {
    /// Takes bytes as a text.
    ///
    /// # Errors
    /// They are not UTF-8.
    pub fn from_utf8(bytes: bytes::Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Text(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }
}
