//! Texts of a known number of tokens.

use crate::random::Random;

/// Each is one token of BERT's vocabulary.
const WORDS: [&str; 64] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "city",
];
/// What a tokenizer puts around a text.
const SPECIAL: usize = 2;

/// A text of so many tokens, special ones included, at least 8; another for each number below 2^24.
pub(crate) fn text(number: u64, tokens: usize) -> String {
    let mut random = Random::new(number);
    let own = (0..4).map(|digit| number >> (6 * digit));
    let words = own.chain(std::iter::from_fn(|| Some(random.number() >> 32)));
    let words = words.map(|bits| WORDS[(bits % 64) as usize]);
    words.take(tokens - SPECIAL).collect::<Vec<_>>().join(" ")
}
