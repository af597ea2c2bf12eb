//! The texts of a soak, and their vectors from a server that remembers nothing.

use std::{collections::HashSet, path::Path};

use embark_tests::{Manifest, Random, Sidecar};

/// Texts that there are. Their vectors are more than the memory tier holds.
const TEXTS: usize = 6000;
const WORDS: [&str; 48] = [
    "river", "stone", "market", "winter", "garden", "letter", "window", "silver", "forest",
    "bridge", "summer", "engine", "doctor", "island", "planet", "record", "sugar", "travel",
    "orange", "music", "valley", "circle", "mirror", "father", "dragon", "temple", "harbor",
    "candle", "cotton", "desert", "empire", "finger", "hammer", "jacket", "kitchen", "ladder",
    "meadow", "needle", "ocean", "pepper", "rabbit", "shadow", "thunder", "village", "whisper",
    "yellow", "animal", "butter",
];

/// Every text, and its vector.
pub(super) struct Reference {
    pub(super) texts: Vec<String>,
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) space: String,
}

// === impl Reference ===

impl Reference {
    pub(super) async fn new(folder: &Path, manifest: &Manifest) -> Self {
        // The order of words counts for nothing in its model: each text has others, or other numbers of them.
        let mut random = Random::new(6000);
        let mut text = |_| {
            let words = (0..8 + random.below(17)).map(|_| WORDS[random.index(WORDS.len())]);
            words.collect::<Vec<_>>().join(" ")
        };
        let texts: Vec<String> = (0..TEXTS).map(&mut text).collect();
        let alone = folder.join("reference");
        std::fs::create_dir(&alone).unwrap();
        let manifest = manifest.clone().with("/spec/cache/mode", "Disabled");
        let sidecar = Sidecar::serve(&alone, &manifest).await;
        let mut vectors = Vec::new();
        for texts in texts.chunks(32) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            vectors.extend(sidecar.embed(&texts).await.into_iter().map(|result| result.vector));
        }
        let space = sidecar.space().await;
        sidecar.stop().await;
        let bits = |vector: &Vec<f32>| vector.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let apart: HashSet<Vec<u32>> = vectors.iter().map(bits).collect();
        assert_eq!(
            apart.len(),
            TEXTS,
            "two texts have one vector, so one could stand for the other"
        );
        Reference { texts, vectors, space }
    }

    /// The number of a text, as callers choose them: few are asked for often, and most seldom. One in four is any, so that
    /// memory does not hold it.
    pub(super) fn choose(&self, random: &mut Random) -> usize {
        if random.below(4) == 0 {
            return random.index(TEXTS);
        }
        #[expect(clippy::cast_precision_loss, reason = "a fraction of less than 53 bits")]
        let (fraction, most) = (random.below(1 << 32) as f64 / (1_u64 << 32) as f64, TEXTS as f64);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the number of texts"
        )]
        let rank = most.powf(fraction) as usize;
        (rank - 1).min(TEXTS - 1)
    }

    /// The first values of a text's vector, of length 1 again.
    pub(super) fn cut(&self, text: usize, dimensions: usize) -> Vec<f32> {
        let vector = &self.vectors[text];
        if dimensions == 0 || dimensions >= vector.len() {
            return vector.clone();
        }
        let first = &vector[..dimensions];
        let length = first.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "values of a vector of length 1")]
        first.iter().map(|value| (f64::from(*value) / length) as f32).collect()
    }
}
