//! What is tried of a model before it is served: every refusal that a caller would otherwise meet first.

use embark_crds::contract::TextInput;

use super::{SOURCE, Shared, graph, output::Wanted, run::RunError};
use crate::{
    error::ErrorKind,
    model::{engine::Row, refusal::Refusal, tokenizer::TokenizerFacts},
};

/// The field of the tokenizer.
const TOKENIZER: &str = "spec.input.text.tokenizer";
/// The field of the longest row.
const MAX_TOKENS: &str = "spec.input.text.maxTokens";

// === free functions ===

/// Checks that the tokenizer's ids are in the model's tables, where the file shows those. The runtime would not always
/// notice: a lookup beyond a table can land in what lies behind it.
pub(super) fn vocabulary(
    graph: &tract_onnx::pb::GraphProto,
    ids: &str,
    tokenizer: &TokenizerFacts,
) -> Result<(), Refusal> {
    match graph::embedding_rows(graph, ids) {
        Some(rows) if u64::from(tokenizer.highest_id) >= rows => {
            let sentence = format!(
                "does not fit the model: its highest id is {}, but the model's embedding table has {rows} rows",
                tokenizer.highest_id
            );
            Err(Refusal::new(TOKENIZER, sentence))
        }
        _ => Ok(()),
    }
}

/// Checks that rows of the model's length can be run at all.
pub(super) fn fixed_length(fixed: Option<usize>, text: &TextInput) -> Result<(), Refusal> {
    match fixed {
        Some(fixed) if text.max_tokens as usize > fixed => {
            let sentence = format!(
                "{}, but the model's file fixes its rows to {fixed} tokens, so at most {fixed} is allowed",
                text.max_tokens
            );
            Err(Refusal::new(MAX_TOKENS, sentence))
        }
        _ => Ok(()),
    }
}

/// Runs the model on a neutral row, on a text, on the highest id and on the longest row.
pub(super) fn run(
    shared: &Shared,
    wanted: &Wanted<'_>,
    (tokenizer, text): (&TokenizerFacts, &TextInput),
) -> Result<(), Refusal> {
    let sample = &tokenizer.sample;
    // Id 0 is in every table, so what fails here is not the tokenizer's fault.
    try_row(shared, &vec![0; sample.len()], wanted, |words| {
        Refusal::new(
            SOURCE,
            format!("the model fails on a row of {} tokens: {words}", sample.len()),
        )
    })?;
    let foreign = |words: String| {
        Refusal::new(TOKENIZER, format!("does not fit the model, which fails on its ids: {words}"))
    };
    let finite = try_row(shared, sample, wanted, foreign)?;
    if !finite {
        let sentence = "the model gives values that are not finite for a short text";
        return Err(Refusal::new(SOURCE, sentence));
    }
    let mut highest = sample.clone();
    if let Some(middle) = highest.get_mut(sample.len() / 2) {
        *middle = tokenizer.highest_id;
    }
    try_row(shared, &highest, wanted, foreign)?;
    let longest: Vec<u32> = sample.iter().copied().cycle().take(text.max_tokens as usize).collect();
    try_row(shared, &longest, wanted, |words| {
        let sentence = format!(
            "{}, but the model fails on a row of so many tokens, though not on one of {}: {words}",
            text.max_tokens,
            sample.len()
        );
        Refusal::new(MAX_TOKENS, sentence)
    })?;
    Ok(())
}

/// Runs one row; whether its vector is finite.
fn try_row(
    shared: &Shared,
    ids: &[u32],
    wanted: &Wanted<'_>,
    refuse: impl Fn(String) -> Refusal,
) -> Result<bool, Refusal> {
    let row = Row::of_tokens(ids.to_vec());
    match shared.run(&[&row]) {
        Ok(vectors) => Ok(vectors.iter().all(|vector| match vector {
            Ok(_) => true,
            Err(error) => error.kind != ErrorKind::NotFinite,
        })),
        Err(RunError::Dimensions(size)) => Err(wanted.other_dimensions(&shared.output, size)),
        Err(RunError::Runtime(words)) => Err(refuse(words)),
    }
}
