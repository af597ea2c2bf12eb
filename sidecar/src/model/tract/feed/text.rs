//! Texts: what each input of the graph is for, and token ids in their places.

use embark_crds::contract::TextInput;
use tract_onnx::{
    pb::{GraphProto, tensor_proto::DataType},
    prelude::*,
};

use super::super::{
    SOURCE,
    cut::{Cut, Shapes},
    graph,
    port::{MAX_FIXED_BATCH, Port, inputs, list},
};
use crate::model::{
    engine::Row,
    refusal::{Refusal, quote},
    tokenizer::TokenizerFacts,
};

/// The field of the tokenizer.
pub(in super::super) const TOKENIZER: &str = "spec.input.text.tokenizer";
/// The field of the longest row.
pub(in super::super) const MAX_TOKENS: &str = "spec.input.text.maxTokens";

/// The most tokens that a file may fix a row to.
const MAX_FIXED_SEQUENCE: usize = 128 * 1024;

/// The inputs of a text model, in their order, and how they are filled.
#[derive(Clone, Debug)]
pub(in super::super) struct TextFeed {
    slots: Vec<Slot>,
    /// Rows of a run, where the file fixes them.
    batch: Option<usize>,
    /// Tokens of a row, where the file fixes them.
    sequence: Option<usize>,
    /// Tokens of the longest row.
    pub(in super::super) longest: usize,
    pub(in super::super) tokenizer: TokenizerFacts,
}

/// What an input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Token ids.
    Ids,
    /// 1 for a token, 0 for padding.
    Mask,
    /// Which of two texts a token is of; always 0.
    Types,
}

/// How an input is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    role: Role,
    /// int64; otherwise int32.
    wide: bool,
}

// === impl TextFeed ===

impl TextFeed {
    /// What each input of the graph is for. The sizes that the file shows are checked against the manifest and the tokenizer.
    pub(super) fn of(
        graph: &GraphProto,
        input: &TextInput,
        tokenizer: &TokenizerFacts,
    ) -> Result<Self, Refusal> {
        let ports = inputs(graph);
        let refuse = |why: &str| {
            let sentence = format!(
                "the model's inputs must be token ids and, where it has them, an attention mask and token types, \
                 each int32 or int64 [batch, sequence]; {why}; its inputs: {}",
                list(&ports)
            );
            Err(Refusal::new(SOURCE, sentence))
        };
        let mut feed = TextFeed {
            slots: Vec::new(),
            batch: None,
            sequence: None,
            longest: input.max_tokens as usize,
            tokenizer: tokenizer.clone(),
        };
        let mut ids = None;
        for port in &ports {
            let wide = match port.kind {
                Some(DataType::Int64) => true,
                Some(DataType::Int32) => false,
                _ => return refuse(&format!("{:?} is not of integers", quote(&port.name))),
            };
            let role = if ports.len() == 1 { Some(Role::Ids) } else { Role::of(&port.name) };
            let Some(role) = role else {
                return refuse(&format!("{:?} is none of these", quote(&port.name)));
            };
            if feed.has(role) {
                return refuse(&format!("{:?} could be the same as another", quote(&port.name)));
            }
            if role == Role::Ids {
                ids = Some(&port.name);
            }
            feed.slots.push(Slot { role, wide });
            if let Err(why) = feed.fix(port) {
                return refuse(&format!("{:?} {why}", quote(&port.name)));
            }
        }
        let Some(ids) = ids else { return refuse("none of them is the token ids") };
        check_length(feed.sequence, input)?;
        check_vocabulary(graph, ids, tokenizer)?;
        Ok(feed)
    }

    /// See [`Feed::shapes`](super::Feed::shapes).
    pub(super) fn shapes(&self) -> Shapes {
        Shapes {
            batch: self.batch,
            sequence: self.sequence,
            masked: self.has(Role::Mask),
            bucketed: false,
            longest: self.longest,
            most: usize::MAX,
        }
    }

    /// See [`Feed::facts`](super::Feed::facts).
    pub(super) fn facts(&self, shape: &[TDim; 2]) -> Vec<InferenceFact> {
        let kind = |slot: &Slot| if slot.wide { i64::datum_type() } else { i32::datum_type() };
        let fact = |slot| InferenceFact::dt_shape(kind(slot), shape.iter().cloned());
        self.slots.iter().map(fact).collect()
    }

    /// See [`Feed::tensors`](super::Feed::tensors).
    pub(super) fn tensors(&self, rows: &[&Row], cut: &Cut) -> TractResult<TVec<TValue>> {
        self.slots.iter().map(|slot| self.tensor(*slot, rows, cut)).collect()
    }

    /// A row of so many tokens, as far as there can be, of id 0, which is in every table.
    pub(in super::super) fn neutral(&self, tokens: usize) -> Row {
        Row::of_tokens(vec![0; tokens.min(self.longest)])
    }

    fn has(&self, role: Role) -> bool {
        self.slots.iter().any(|slot| slot.role == role)
    }

    /// Takes the sizes that the file fixes for a port.
    fn fix(&mut self, port: &Port) -> Result<(), String> {
        let Some(dims) = &port.dims else { return Ok(()) };
        let [batch, sequence] = dims.as_slice() else {
            return Err(format!("has {} axes", dims.len()));
        };
        let axes = [
            (batch, &mut self.batch, MAX_FIXED_BATCH),
            (sequence, &mut self.sequence, MAX_FIXED_SEQUENCE),
        ];
        for (dim, known, most) in axes {
            let Some(size) = dim.fixed(most)? else { continue };
            if known.is_some_and(|other| other != size) {
                return Err("has another shape than the others".to_owned());
            }
            *known = Some(size);
        }
        Ok(())
    }

    fn tensor(&self, slot: Slot, rows: &[&Row], cut: &Cut) -> TractResult<TValue> {
        let padding = if slot.role == Role::Ids { i64::from(self.tokenizer.pad_id) } else { 0 };
        let mut values = vec![padding; cut.batch * cut.sequence];
        for (place, positions) in values.chunks_exact_mut(cut.sequence).enumerate() {
            let ids = rows.get(place).map_or(&[][..], |row| row.tokens());
            match slot.role {
                Role::Ids => {
                    for (position, id) in positions.iter_mut().zip(ids) {
                        *position = i64::from(*id);
                    }
                }
                // A row that only fills the run up has one token, so that nothing is divided by zero.
                Role::Mask => positions.iter_mut().take(ids.len().max(1)).for_each(|p| *p = 1),
                Role::Types => {}
            }
        }
        let shape = [cut.batch, cut.sequence];
        let tensor = Tensor::from_shape(&shape, &values)?;
        let tensor = if slot.wide { tensor } else { tensor.cast_to::<i32>()?.into_owned() };
        Ok(tensor.into_tvalue())
    }
}

// === impl Role ===

impl Role {
    /// What an input of this name is for, by the names that exporters use.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if has(&["position", "past", "cache", "decoder", "pixel"]) {
            None
        } else if has(&["mask", "attention"]) {
            Some(Role::Mask)
        } else if has(&["type", "segment"]) {
            Some(Role::Types)
        } else if has(&["id", "token", "input", "word"]) {
            Some(Role::Ids)
        } else {
            None
        }
    }
}

// === free functions ===

/// Checks that rows of the model's length can be run at all.
fn check_length(fixed: Option<usize>, text: &TextInput) -> Result<(), Refusal> {
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

/// Checks that the tokenizer's ids are in the model's tables, where the file shows those. The runtime would not always
/// notice: a lookup beyond a table can land in what lies behind it.
fn check_vocabulary(
    graph: &GraphProto,
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
