//! What is asked for: texts of a number of words, some far more often than others.

use crate::args;

/// Words of all texts.
const WORDS: [&str; 32] = [
    "river", "market", "window", "music", "garden", "letter", "winter", "bridge", "silver",
    "teacher", "island", "candle", "paper", "mountain", "engine", "kitchen", "forest", "planet",
    "story", "doctor", "summer", "village", "picture", "ocean", "travel", "number", "shadow",
    "cotton", "harbour", "library", "season", "copper",
];

/// Draws texts by Zipf's law: the one of rank n as often as 1 / n^s.
pub(super) struct Texts {
    /// The share of the first n texts in all, by n.
    shares: Vec<f64>,
    random: fastrand::Rng,
    words: u32,
    items: u32,
}

// === impl Texts ===

impl Texts {
    pub(super) fn new(arguments: &args::Bench) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=arguments.keys.get())
            .map(|rank| {
                sum += f64::from(rank).powf(-arguments.zipf);
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        // Another stream than that of the times.
        let random = fastrand::Rng::with_seed(!arguments.seed);
        Texts { shares, random, words: arguments.words.get(), items: arguments.items }
    }

    /// The texts of the next call.
    pub(super) fn batch(&mut self) -> Vec<String> {
        (0..self.items).map(|_| self.text()).collect()
    }

    fn text(&mut self) -> String {
        let drawn = self.random.f64();
        let rank = self.shares.partition_point(|share| *share <= drawn);
        text(rank, self.words)
    }
}

// === free functions ===

/// The text of a rank, the same in every run.
fn text(rank: usize, words: u32) -> String {
    let mut random = fastrand::Rng::with_seed(rank as u64);
    let mut text = format!("{rank}");
    for _ in 1..words {
        text.push(' ');
        text.push_str(WORDS[random.usize(..WORDS.len())]);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn texts(arguments: &str) -> Texts {
        let words = ["embark-sidecar", "bench"].into_iter().chain(arguments.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Bench(bench) => Texts::new(&bench),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_text_is_drawn_twice_as_often_as_the_second() {
        let mut texts = texts("--keys 100 --zipf 1.0 --items 10");
        let mut counts = BTreeMap::<String, u32>::new();
        for drawn in (0..5_000).flat_map(|_| texts.batch()) {
            *counts.entry(drawn).or_default() += 1;
        }
        let of = |rank| f64::from(counts[&text(rank, 8)]);
        assert!((1.8..2.2).contains(&(of(0) / of(1))), "{} {}", of(0), of(1));
        assert_eq!(counts.len(), 100);
    }

    #[test]
    fn without_a_slope_all_are_drawn_alike_and_texts_have_their_words() {
        let mut texts = texts("--keys 4 --zipf 0 --words 3");
        let mut counts = BTreeMap::<String, u32>::new();
        for drawn in (0..4_000).flat_map(|_| texts.batch()) {
            assert_eq!(drawn.split(' ').count(), 3);
            *counts.entry(drawn).or_default() += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (850..1150).contains(count)));
    }
}
