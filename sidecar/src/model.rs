//! A served model: its files, its tokenizer, its engine.
//!
//! [`load`](load::load) is the use case: fetch, verify, check, parse, probe. The other modules each know one step of it.
pub mod artifact;
pub mod engine;
pub mod image;
pub mod load;
pub mod pooling;
pub mod preparer;
pub mod refusal;
pub mod stages;
pub mod support;
pub mod tokenizer;
pub mod tract;
pub mod vocabulary;

#[cfg(test)]
pub(crate) mod test_support;
