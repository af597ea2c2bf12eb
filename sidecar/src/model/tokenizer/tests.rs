use serde_json::{Value, json};

use super::*;
use crate::model::test_support::{TINY_TOKENIZER, text, tiny};

fn input(max_tokens: u32) -> TextInput {
    let mut serving = tiny().serving;
    text(&mut serving).max_tokens = max_tokens;
    text(&mut serving).clone()
}

fn tokenizer(max_tokens: u32) -> Tokenizer {
    Tokenizer::load(TINY_TOKENIZER, &input(max_tokens)).unwrap()
}

/// The tiny model's file, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(TINY_TOKENIZER).unwrap();
    change(&mut file);
    serde_json::to_vec(&file).unwrap()
}

#[test]
fn a_text_has_the_ids_of_the_golden() {
    let row = tokenizer(256).encode("", "The weather is lovely today.").unwrap();
    assert_eq!(row.tokens(), [101, 1996, 4633, 2003, 8403, 2651, 1012, 102]);
    assert!(!row.truncated);
}

#[test]
fn a_prefix_is_put_before_the_text() {
    let tokenizer = tokenizer(256);
    let joined = tokenizer.encode("", "query: weather").unwrap();
    assert_eq!(tokenizer.encode("query: ", "weather").unwrap(), joined);
}

#[test]
fn a_long_text_is_cut_and_keeps_its_closing_token() {
    let row = tokenizer(5).encode("", "The weather is lovely today.").unwrap();
    assert_eq!(row.tokens(), [101, 1996, 4633, 2003, 102]);
    assert!(row.truncated);
}

#[test]
fn a_text_of_exactly_the_longest_length_is_not_cut() {
    let row = tokenizer(8).encode("", "The weather is lovely today.").unwrap();
    assert_eq!((row.tokens().len(), row.truncated), (8, false));
}

#[test]
fn the_files_own_padding_and_truncation_are_off() {
    let bytes = changed(|file| {
        file["padding"] = json!({
            "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]"
        });
        file["truncation"] = json!({
            "direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 1
        });
    });
    let tokenizer = Tokenizer::load(&bytes, &input(256)).unwrap();
    let row = tokenizer.encode("", "The weather is lovely today.").unwrap();
    assert_eq!(row.tokens(), [101, 1996, 4633, 2003, 8403, 2651, 1012, 102]);
    assert_eq!(tokenizer.facts().pad_id, 7);
}

#[test]
fn the_pad_id_is_found_by_its_token_or_is_zero() {
    let renamed = |from: &'static str, to: &'static str| {
        changed(move |file| {
            file["padding"] = Value::Null;
            file["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != from);
            let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
            vocabulary.remove(from);
            vocabulary.insert(to.to_owned(), json!(29_999));
        })
    };
    let found = Tokenizer::load(&renamed("[PAD]", "<pad>"), &input(256)).unwrap();
    assert_eq!(found.facts().pad_id, 29_999);
    let absent = Tokenizer::load(&renamed("[PAD]", "other"), &input(256)).unwrap();
    assert_eq!(absent.facts().pad_id, 0);
}

#[test]
fn the_highest_id_is_known() {
    assert_eq!(tokenizer(256).facts().highest_id, 30_521);
}

#[test]
fn a_file_of_another_kind_is_refused() {
    for bytes in [&b""[..], b"[1, 2]", b"{}", b"\0\x01", b"{\"model\": {\"type\": \"Other\"}}"] {
        let refusal = Tokenizer::load(bytes, &input(256)).unwrap_err();
        let sentence = refusal.to_string();
        let start = "spec.input.text.tokenizer: the file is not a Hugging Face tokenizer.json: ";
        assert!(sentence.starts_with(start), "{sentence}");
    }
}

#[test]
fn rows_too_short_for_the_special_tokens_are_refused() {
    let refusal = Tokenizer::load(TINY_TOKENIZER, &input(2)).unwrap_err();
    let sentence = refusal.to_string();
    let end = "2 leaves no room beside the tokenizer's 2 special tokens";
    assert_eq!(sentence, format!("spec.input.text.maxTokens: {end}"));
}

#[test]
fn a_vocabulary_that_is_searched_for_very_long_words_is_refused() {
    let bytes = changed(|file| file["model"]["max_input_chars_per_word"] = json!(1_000_000));
    let sentence = Tokenizer::load(&bytes, &input(256)).unwrap_err().to_string();
    assert!(sentence.ends_with("is 1000000, at most 256 is allowed"), "{sentence}");
}

#[test]
fn a_text_without_tokens_is_refused() {
    let bytes = changed(|file| file["post_processor"] = Value::Null);
    let tokenizer = Tokenizer::load(&bytes, &input(256)).unwrap();
    let error = tokenizer.encode("", " \n\t ").unwrap_err();
    assert_eq!((error.kind, error.field.as_str()), (ErrorKind::TextEmpty, TEXT_FIELD));
}

/// A byte-level vocabulary of pairs, which takes a text without spaces as one word.
fn byte_pairs() -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "vocab": {"a": 0, "b": 1, "aa": 2, "aaaa": 3, "ab": 4},
        "merges": [["a", "a"], ["aa", "aa"], ["a", "b"]]
    })
}

fn unigram() -> Value {
    json!({
        "type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["aa", -1.5], ["aaaa", -2.0], ["b", -1.0]]
    })
}

fn of_model(model: Value, pre_tokenizer: Value) -> Vec<u8> {
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": null, "model": model
    });
    serde_json::to_vec(&file).unwrap()
}

#[test]
fn the_largest_texts_are_cut_like_any_other() {
    let tokenizer = tokenizer(16);
    let pieces = ["a", " ", "a ", "#", "é", "漢", "\u{301}", "[SEP]", "ab-", "\n", "\u{200d}", "ß"];
    for piece in pieces {
        let text: String = piece.repeat(256 * 1024 / piece.len());
        let row = tokenizer.encode("", &text).unwrap();
        assert!(row.tokens().len() <= 16, "{piece:?}: {}", row.tokens().len());
    }
}

#[test]
fn the_largest_texts_are_cut_by_vocabularies_of_other_kinds() {
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let kinds = [
        of_model(byte_pairs(), Value::Null),
        of_model(byte_pairs(), bytes),
        of_model(unigram(), Value::Null),
    ];
    for file in kinds {
        let tokenizer = Tokenizer::load(&file, &input(16)).unwrap();
        for piece in ["a", "ab", "a "] {
            let text: String = piece.repeat(256 * 1024 / piece.len());
            let row = tokenizer.encode("", &text).unwrap();
            assert!(row.truncated && row.tokens().len() == 16, "{piece:?}: {:?}", row.tokens());
        }
    }
}

#[test]
fn a_row_without_special_tokens_that_is_just_full_is_cut_only_when_more_follows() {
    let spaces = json!({"type": "Whitespace"});
    let tokenizer = Tokenizer::load(&of_model(byte_pairs(), spaces), &input(3)).unwrap();
    for (text, truncated) in [("b b b", false), ("b b b b", true), ("b b bb", true)] {
        let row = tokenizer.encode("", text).unwrap();
        assert_eq!((row.tokens(), row.truncated), (&[1, 1, 1][..], truncated), "{text:?}");
    }
}

#[test]
fn the_largest_text_is_cut_to_the_shortest_row() {
    // Every window beyond the first is made and thrown away by the crate: here there are a quarter of a million.
    let row = tokenizer(3).encode("", &"#".repeat(256 * 1024)).unwrap();
    assert_eq!((row.tokens().len(), row.truncated), (3, true));
}

/// The tiny model's tokenizer, which does this with long texts.
fn reading(overlong: Overlong, max_tokens: u32) -> Tokenizer {
    Tokenizer::load(TINY_TOKENIZER, &TextInput { overlong, ..input(max_tokens) }).unwrap()
}

#[test]
fn a_text_that_fits_is_one_row_whatever_is_done_with_longer_ones() {
    for overlong in [Overlong::Truncate, Overlong::Reject, Overlong::Chunk] {
        let rows = reading(overlong, 8).rows("", "The weather is lovely today.").unwrap();
        assert_eq!(rows, [tokenizer(8).encode("", "The weather is lovely today.").unwrap()]);
        let rows = reading(overlong, 12).rows("query: ", "The weather").unwrap();
        assert_eq!(rows, [tokenizer(12).encode("query: ", "The weather").unwrap()]);
    }
}

#[test]
fn a_long_text_is_refused_with_its_tokens_and_those_that_are_allowed() {
    let error = reading(Overlong::Reject, 7).rows("", "The weather is lovely today.").unwrap_err();
    let expected = "text: has 8 tokens, special ones included; at most 7 are allowed (spec.input.text.maxTokens)";
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::TextTooLong, expected));
    assert_eq!((error.value.as_str(), error.allowed.as_str()), ("8 tokens", "at most 7 tokens"));
    let error = reading(Overlong::Reject, 7).rows("", &"#".repeat(256 * 1024)).unwrap_err();
    assert!(error.message.starts_with("text: has more than 65536 tokens, "), "{error}");
}

#[test]
fn a_long_text_is_read_in_windows_each_with_its_special_tokens() {
    let tokenizer = reading(Overlong::Chunk, 10);
    let text =
        "The weather is lovely today. It is so sunny outside, and the streets are full of people.";
    let whole = self::tokenizer(256).encode("", text).unwrap();
    let inner = &whole.tokens()[1..whole.tokens().len() - 1];
    let rows = tokenizer.rows("", text).unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for (at, row) in rows.iter().enumerate() {
        let end = inner.len().min(7 * at + 8);
        assert_eq!(row.tokens(), [&[101], &inner[7 * at..end], &[102]].concat());
        assert!(!row.truncated);
    }
}

#[test]
fn a_prompt_is_put_into_every_window() {
    let tokenizer = reading(Overlong::Chunk, 12);
    let rows = tokenizer.rows("query: ", &"weather ".repeat(30)).unwrap();
    let prompt = self::tokenizer(256).encode("", "query:").unwrap();
    let prompt = &prompt.tokens()[..prompt.tokens().len() - 1];
    assert!(rows.len() > 3 && rows.iter().all(|row| row.tokens().starts_with(prompt)), "{rows:?}");
}

#[test]
fn what_is_behind_the_last_window_is_cut() {
    let tokenizer = reading(Overlong::Chunk, 10);
    // Windows hold 8 tokens, 7 of which are new.
    for (tokens, windows, truncated) in
        [(8 + 63 * 7, 64, false), (9 + 63 * 7, 64, true), (200_000, 64, true)]
    {
        let rows = tokenizer.rows("", &"a ".repeat(tokens)).unwrap();
        assert_eq!((rows.len(), rows[0].truncated), (windows, truncated), "{tokens}");
    }
}

#[test]
fn a_prompt_that_would_fill_the_windows_is_refused() {
    let prompt =
        Prompt { name: "query".to_owned(), prefix: "one two three four five: ".to_owned() };
    let of = |max_tokens, overlong| {
        let input = TextInput { prompts: vec![prompt.clone()], overlong, ..input(max_tokens) };
        Tokenizer::load(TINY_TOKENIZER, &input).map(drop).map_err(|refusal| refusal.to_string())
    };
    let expected = "spec.input.text.prompts: \"query\" has 6 tokens; with overlong: Chunk it is put into every window, and \
                    at most 5 are allowed, which is half of one";
    assert_eq!(of(12, Overlong::Chunk).unwrap_err(), expected);
    assert_eq!((of(14, Overlong::Chunk), of(12, Overlong::Truncate)), (Ok(()), Ok(())));
}

#[test]
fn texts_of_other_vocabularies_are_not_cut_either() {
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    for file in [
        of_model(byte_pairs(), Value::Null),
        of_model(byte_pairs(), bytes),
        of_model(unigram(), Value::Null),
    ] {
        let of = |overlong| Tokenizer::load(&file, &TextInput { overlong, ..input(16) }).unwrap();
        let text = "ab".repeat(20);
        let rows = of(Overlong::Chunk).rows("", &text).unwrap();
        assert!(
            rows.len() > 1 && rows.iter().all(|row| (1..=16).contains(&row.tokens().len())),
            "{rows:?}"
        );
        assert_eq!(of(Overlong::Reject).rows("", &text).unwrap_err().kind, ErrorKind::TextTooLong);
        assert_eq!(of(Overlong::Reject).rows("", "ab").unwrap().len(), 1);
    }
}
