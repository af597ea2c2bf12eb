//! A served model: its files, its tokenizer, its engine.
pub mod engine;
