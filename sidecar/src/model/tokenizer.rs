//! Text to token ids, by a Hugging Face `tokenizer.json`. The only file that names the tokenizers crate.
//!
//! The file's own padding and truncation are switched off: many files carry a fixed length that would cost every call its
//! full price. Rows are cut here, by the crate's own truncation, so that the closing special token stays; padding is the
//! engine's. Panics of the crate are contained.

use std::borrow::Cow;

use embark_crds::contract::{Overlong, Prompt, TextInput};
use tokenizers::{
    Encoding, ModelWrapper, PostProcessor, TruncationDirection, TruncationParams,
    TruncationStrategy,
};
use tracing::warn;

use super::{
    engine::Row,
    refusal::{Refusal, contained, quote},
};
use crate::error::{Error, ErrorKind};
use whole::Frame;

mod whole;

pub use whole::MAX_WINDOWS;

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
/// Ids whose tokens are tried where the vocabulary knows nothing of that.
const MAX_SAMPLES: u32 = 256;

/// A loaded tokenizer. It is shared between threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_tokens: usize,
    reading: Reading,
    facts: TokenizerFacts,
}

/// What is done with a text of more tokens than a row has.
#[derive(Debug)]
enum Reading {
    /// Its beginning is read.
    Cut,
    /// It is refused.
    Refuse(Frame),
    /// It is read in windows.
    Windows(Frame),
}

/// The tokens of a text, without special ones.
struct Plain {
    ids: Vec<u32>,
    /// How many of the first ones are the prompt's.
    prompt: usize,
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
        let mut tokenizer = Tokenizer { inner, max_tokens, reading: Reading::Cut, facts };
        tokenizer.facts.sample = match tokenizer.encode("", SAMPLE) {
            Ok(row) => row.tokens().to_vec(),
            // A vocabulary of another script, which drops what it does not know.
            Err(error) if error.kind == ErrorKind::TextEmpty => vec![highest_id],
            Err(error) => return Err(Refusal::new(FIELD, error.message.clone())),
        };
        tokenizer.read_whole(text)?;
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

    /// The rows of `text` behind a prompt's `prefix` (empty: no prompt): one, or the windows of a long text.
    ///
    /// # Errors
    /// The text has no tokens, or too many, or the tokenizer cannot read it.
    pub fn rows(&self, prefix: &str, text: &str) -> Result<Vec<Row>, Error> {
        match &self.reading {
            Reading::Cut => Ok(vec![self.encode(prefix, text)?]),
            Reading::Refuse(frame) => {
                let ids = self.plain(prefix, text)?.ids;
                let (tokens, most) = (ids.len() + frame.special(), self.max_tokens);
                if tokens > most {
                    return Err(too_many(ids.len(), tokens, most));
                }
                Self::row(frame.row(&ids), text, false).map(|row| vec![row])
            }
            Reading::Windows(frame) => {
                let Plain { ids, prompt } = self.plain(prefix, text)?;
                let windows = frame.windows(&ids, prompt);
                let row = |ids| Self::row(ids, text, windows.is_cut);
                windows.rows.into_iter().map(row).collect()
            }
        }
    }

    /// The row of `text` behind a prompt's `prefix` (empty: no prompt), cut to the model's length.
    ///
    /// # Errors
    /// The text has no tokens, or the tokenizer cannot read it.
    pub fn encode(&self, prefix: &str, text: &str) -> Result<Row, Error> {
        let whole = joined(prefix, text);
        let encoding = encoded(|| self.inner.encode_fast(&*whole, true))?;
        let mut ids = encoding.get_ids().to_vec();
        let truncated = !encoding.get_overflowing().is_empty() || ids.len() > self.max_tokens;
        ids.truncate(self.max_tokens);
        Self::row(ids, text, truncated)
    }

    /// The tokens of `text` behind `prefix`, without special ones.
    fn plain(&self, prefix: &str, text: &str) -> Result<Plain, Error> {
        let whole = joined(prefix, text);
        // Where tokens lie in the text is of use only where some of them are the prompt's.
        let encoding = if prefix.is_empty() {
            encoded(|| self.inner.encode_fast(&*whole, false))?
        } else {
            encoded(|| self.inner.encode(&*whole, false))?
        };
        let of_prompt = |(start, end): &&(usize, usize)| start < end && *end <= prefix.len();
        let prompt = encoding.get_offsets().iter().take_while(of_prompt).count();
        Ok(Plain { ids: encoding.get_ids().to_vec(), prompt })
    }

    /// Makes ready for texts that are not cut, where the manifest says so.
    fn read_whole(&mut self, input: &TextInput) -> Result<(), Refusal> {
        if input.overlong == Overlong::Truncate {
            return Ok(());
        }
        bound(&mut self.inner, whole::MAX_COUNTED + 1)?;
        let frame = self.frame()?;
        self.reading = if input.overlong == Overlong::Reject {
            Reading::Refuse(frame)
        } else {
            // One more than the windows hold, so that a text that ends there differs from one that goes on.
            bound(&mut self.inner, frame.most() + 1)?;
            input.prompts.iter().try_for_each(|prompt| self.check_prompt(prompt, &frame))?;
            Reading::Windows(frame)
        };
        Ok(())
    }

    /// What stands around the tokens of a text, by the first sample that has any. Of a vocabulary that knows none of them,
    /// one of its own tokens is the sample.
    fn frame(&self) -> Result<Frame, Refusal> {
        let refuse = |error: Error| Refusal::new(FIELD, error.message.clone());
        let mut pair = (Vec::new(), Vec::new());
        let samples = [SAMPLE, "1", "\u{7684}", "\u{623}"].map(str::to_owned);
        let is_text = |token: &String| !self.inner.get_added_vocabulary().is_special_token(token);
        let tokens = (0..MAX_SAMPLES).filter_map(|id| self.inner.id_to_token(id)).filter(is_text);
        for sample in samples.into_iter().chain(tokens) {
            let plain = self.plain("", &sample).map_err(refuse)?.ids;
            if !plain.is_empty() {
                let framed = encoded(|| self.inner.encode_fast(&*sample, true)).map_err(refuse)?;
                pair = (plain, framed.get_ids().to_vec());
                break;
            }
        }
        Frame::of(&pair.0, &pair.1, self.max_tokens)
    }

    fn check_prompt(&self, prompt: &Prompt, frame: &Frame) -> Result<(), Refusal> {
        let refuse = |sentence: String| Refusal::new("spec.input.text.prompts", sentence);
        let plain =
            self.plain("", &prompt.prefix).map_err(|error| refuse(error.message.clone()))?;
        let (tokens, most) = (plain.ids.len(), frame.prompt_room());
        if tokens <= most {
            return Ok(());
        }
        Err(refuse(format!(
            "{:?} has {tokens} tokens; with overlong: Chunk it is put into every window, and at most {most} are allowed, \
             which is half of one",
            prompt.name
        )))
    }

    fn row(ids: Vec<u32>, text: &str, truncated: bool) -> Result<Row, Error> {
        if ids.is_empty() {
            let allowed = "has no token that the model reads";
            return Err(Error::of_field(ErrorKind::TextEmpty, TEXT_FIELD, text, allowed));
        }
        Ok(Row { truncated, ..Row::of_tokens(ids) })
    }
}

// === free functions ===

fn joined<'a>(prefix: &str, text: &'a str) -> Cow<'a, str> {
    if prefix.is_empty() { text.into() } else { [prefix, text].concat().into() }
}

/// What the crate makes of a text; its panics are contained.
fn encoded(encode: impl FnOnce() -> tokenizers::Result<Encoding>) -> Result<Encoding, Error> {
    let failed = |words: String| {
        warn!(error = words, "the tokenizer failed on a text");
        Error::new(ErrorKind::Inference, format!("the tokenizer failed on the text: {words}"))
    };
    let encoding = contained(encode).map_err(failed)?;
    encoding.map_err(|error| failed(quote(error)))
}

/// The refusal of a text for having `tokens`, special ones included, of which `plain` are its own.
fn too_many(plain: usize, tokens: usize, most: usize) -> Error {
    let counted = if plain > whole::MAX_COUNTED {
        format!("more than {} tokens", whole::MAX_COUNTED)
    } else {
        format!("{tokens} tokens")
    };
    let sentence = format!(
        "{TEXT_FIELD}: has {counted}, special ones included; at most {most} are allowed (spec.input.text.maxTokens)"
    );
    let error = Error::new(ErrorKind::TextTooLong, sentence).about(TEXT_FIELD, &counted);
    error.allowing(format!("at most {most} tokens"))
}

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
    bound(inner, read).map(|()| max_length)
}

/// Makes the crate read no further than to this number of tokens.
fn bound(inner: &mut tokenizers::Tokenizer, tokens: usize) -> Result<(), Refusal> {
    let truncation = TruncationParams {
        direction: TruncationDirection::Right,
        max_length: tokens,
        strategy: TruncationStrategy::LongestFirst,
        stride: 0,
    };
    match inner.with_truncation(Some(truncation)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let field = "spec.input.text.maxTokens";
            Err(Refusal::new(field, format!("rows cannot be cut: {}", quote(error))))
        }
    }
}

#[cfg(test)]
mod tests;
