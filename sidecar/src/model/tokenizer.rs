//! Text to token ids, by a Hugging Face `tokenizer.json`. The only file that names the tokenizers crate.
//!
//! The file's own padding and truncation are switched off: many files carry a fixed length that would cost every call its
//! full price. Rows are cut here, by the crate's own truncation, so that the closing special token stays; padding is the
//! engine's. Panics of the crate are contained.

use embark_crds::contract::TextInput;
use tokenizers::{
    ModelWrapper, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
};
use tracing::warn;

use super::{
    engine::Row,
    refusal::{Refusal, contained, quote},
};
use crate::error::{Error, ErrorKind};

/// The field that refusals name.
const FIELD: &str = "spec.input.text.tokenizer";
/// The field of an item that a failure of its text names.
pub const TEXT_FIELD: &str = "text";
/// The most bytes of a tokenizer's file. The largest vocabularies in use take a third of it; parsed, it takes a multiple.
const MAX_FILE_BYTES: usize = 128 * 1024 * 1024;
/// The longest word that a WordPiece vocabulary may be searched for. The search takes the cube of the length; files in use
/// say 100.
const MAX_WORD_CHARS: usize = 256;
/// Tokens that are used for padding, where the file does not say which.
const PAD_TOKENS: &[&str] = &["[PAD]", "<pad>", "<PAD>"];
/// The text that stands for any other when a model is tried out.
const SAMPLE: &str = "A short text to try the model.";

/// A loaded tokenizer. It is shared between threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_tokens: usize,
    facts: TokenizerFacts,
}

/// What a model must agree with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFacts {
    /// The highest id that a row can hold, padding included.
    pub highest_id: u32,
    /// The id that rows are padded with.
    pub pad_id: u32,
    /// The ids of a short text, at least one.
    pub sample: Vec<u32>,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is of another kind, or cannot make rows of `text.max_tokens`.
    pub fn load(bytes: &[u8], text: &TextInput) -> Result<Self, Refusal> {
        if bytes.len() > MAX_FILE_BYTES {
            let sentence = format!("the file has more than {MAX_FILE_BYTES} bytes");
            return Err(Refusal::new(FIELD, sentence));
        }
        contained(|| Self::read(bytes, text)).unwrap_or_else(|words| Err(not_a_tokenizer(&words)))
    }

    fn read(bytes: &[u8], text: &TextInput) -> Result<Self, Refusal> {
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| not_a_tokenizer(&quote(e)))?;
        bound_word_search(&inner)?;
        let pad_id = pad_id(&inner);
        let highest = inner.get_vocab(true).into_values().max();
        let highest_id = match highest {
            Some(highest) => highest.max(pad_id),
            None => return Err(Refusal::new(FIELD, "the file's vocabulary is empty")),
        };
        inner.with_padding(None);
        let max_tokens = truncate_to(&mut inner, text.max_tokens)?;
        let facts = TokenizerFacts { highest_id, pad_id, sample: Vec::new() };
        let mut tokenizer = Tokenizer { inner, max_tokens, facts };
        tokenizer.facts.sample = match tokenizer.encode("", SAMPLE) {
            Ok(row) => row.tokens().to_vec(),
            // A vocabulary of another script, which drops what it does not know.
            Err(error) if error.kind == ErrorKind::TextEmpty => vec![highest_id],
            Err(error) => return Err(Refusal::new(FIELD, error.message.clone())),
        };
        Ok(tokenizer)
    }

    /// The most tokens of a row.
    pub fn max_tokens(&self) -> u32 {
        u32::try_from(self.max_tokens).unwrap_or(u32::MAX)
    }

    /// What a model must agree with.
    pub fn facts(&self) -> &TokenizerFacts {
        &self.facts
    }

    /// The row of `text` behind a prompt's `prefix` (empty: no prompt), cut to the model's length.
    ///
    /// # Errors
    /// The text has no tokens, or the tokenizer cannot read it.
    pub fn encode(&self, prefix: &str, text: &str) -> Result<Row, Error> {
        let joined;
        let whole = if prefix.is_empty() {
            text
        } else {
            joined = [prefix, text].concat();
            &joined
        };
        let failed = |words: String| {
            warn!(error = words, "the tokenizer failed on a text");
            Error::new(ErrorKind::Inference, format!("the tokenizer failed on the text: {words}"))
        };
        let encoding = contained(|| self.inner.encode_fast(whole, true)).map_err(failed)?;
        let encoding = encoding.map_err(|error| failed(quote(error)))?;
        if encoding.get_ids().is_empty() {
            let allowed = "has no token that the model reads";
            return Err(Error::of_field(ErrorKind::TextEmpty, TEXT_FIELD, text, allowed));
        }
        let mut ids = encoding.get_ids().to_vec();
        let truncated = !encoding.get_overflowing().is_empty() || ids.len() > self.max_tokens;
        ids.truncate(self.max_tokens);
        Ok(Row { truncated, ..Row::of_tokens(ids) })
    }
}

// === free functions ===

fn not_a_tokenizer(words: &str) -> Refusal {
    Refusal::new(FIELD, format!("the file is not a Hugging Face tokenizer.json: {words}"))
}

fn pad_id(inner: &tokenizers::Tokenizer) -> u32 {
    let own = inner.get_padding().map(|padding| padding.pad_id);
    own.or_else(|| PAD_TOKENS.iter().find_map(|token| inner.token_to_id(token))).unwrap_or(0)
}

fn bound_word_search(inner: &tokenizers::Tokenizer) -> Result<(), Refusal> {
    match inner.get_model() {
        ModelWrapper::WordPiece(model) if model.max_input_chars_per_word > MAX_WORD_CHARS => {
            let sentence = format!(
                "model.max_input_chars_per_word is {}, at most {MAX_WORD_CHARS} is allowed",
                model.max_input_chars_per_word
            );
            Err(Refusal::new(FIELD, sentence))
        }
        _ => Ok(()),
    }
}

/// Makes the crate cut rows, and gives the most tokens of one.
fn truncate_to(inner: &mut tokenizers::Tokenizer, max_tokens: u32) -> Result<usize, Refusal> {
    let field = "spec.input.text.maxTokens";
    let max_length = usize::try_from(max_tokens).unwrap_or(usize::MAX);
    let special = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    // The crate subtracts the one from the other without a check.
    if max_length <= special {
        let sentence =
            format!("{max_tokens} leaves no room beside the tokenizer's {special} special tokens");
        return Err(Refusal::new(field, sentence));
    }
    // The crate reads no further than to the word that fills a row. Where no special token takes room, a text that is cut
    // there looks like one that ends there: one token more tells them apart.
    let read = if special == 0 { max_length.saturating_add(1) } else { max_length };
    let truncation = TruncationParams {
        direction: TruncationDirection::Right,
        max_length: read,
        strategy: TruncationStrategy::LongestFirst,
        stride: 0,
    };
    match inner.with_truncation(Some(truncation)) {
        Ok(_) => Ok(max_length),
        Err(error) => Err(Refusal::new(field, format!("{max_tokens}: {}", quote(error)))),
    }
}

#[cfg(test)]
mod tests;
