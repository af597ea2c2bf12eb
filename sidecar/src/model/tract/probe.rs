//! What is tried of a model before it is served: every refusal that a caller would otherwise meet first.

use super::{
    SOURCE, Shared,
    feed::{CategoryFeed, Feed, MAX_TOKENS, TOKENIZER, TextFeed, Values},
    output::other_dimensions,
    run::RunError,
};
use crate::{
    error::ErrorKind,
    model::{engine::Row, refusal::Refusal, vocabulary::VOCABULARY},
};

// === impl Shared ===

impl Shared {
    /// Runs the model on rows such as callers may send.
    pub(super) fn probe(&self) -> Result<(), Refusal> {
        match &self.feed {
            Feed::Text(feed) => self.probe_texts(feed),
            Feed::Image(feed) => self.probe_images(feed),
            Feed::Tensor(feed) => self.probe_tensors(feed),
            Feed::Category(feed) => self.probe_categories(feed),
        }
    }

    /// On a neutral row, on a text, on the highest id and on the longest row.
    fn probe_texts(&self, feed: &TextFeed) -> Result<(), Refusal> {
        let sample = &feed.tokenizer.sample;
        // What fails here is not the tokenizer's fault.
        self.try_row(&feed.neutral(sample.len()), |words| {
            Refusal::new(
                SOURCE,
                format!("the model fails on a row of {} tokens: {words}", sample.len()),
            )
        })?;
        let foreign = |words: String| {
            let sentence = format!("does not fit the model, which fails on its ids: {words}");
            Refusal::new(TOKENIZER, sentence)
        };
        let finite = self.try_row(&Row::of_tokens(sample.clone()), foreign)?;
        if !finite {
            let sentence = "the model gives values that are not finite for a short text";
            return Err(Refusal::new(SOURCE, sentence));
        }
        let mut highest = sample.clone();
        if let Some(middle) = highest.get_mut(sample.len() / 2) {
            *middle = feed.tokenizer.highest_id;
        }
        self.try_row(&Row::of_tokens(highest), foreign)?;
        self.probe_longest(feed)
    }

    /// On the longest row: many models know a number of positions, and fail on a row of more.
    fn probe_longest(&self, feed: &TextFeed) -> Result<(), Refusal> {
        let sample = &feed.tokenizer.sample;
        let of = |tokens| Row::of_tokens(sample.iter().copied().cycle().take(tokens).collect());
        let refuse = |words: String| Refusal::new(MAX_TOKENS, words);
        let Err(failed) = self.try_row(&of(feed.longest), refuse) else { return Ok(()) };
        if failed.field != MAX_TOKENS {
            return Err(failed);
        }
        // How many there are is found by halving, where the model does not fail on the longest row alone.
        let (mut runs, mut fails) = (sample.len().min(feed.longest), feed.longest);
        while fails - runs > 1 {
            let middle = runs + (fails - runs) / 2;
            match self.try_row(&of(middle), refuse) {
                Ok(_) => runs = middle,
                Err(_) => fails = middle,
            }
        }
        let sentence = format!(
            "{}, but the longest row that the model can run has {runs} tokens: {}",
            feed.longest, failed.sentence
        );
        Err(Refusal::new(MAX_TOKENS, sentence))
    }

    /// On an image of zeros and on one of the highest values. One of them may have no vector, as with tensors; both are
    /// images that callers send.
    fn probe_images(&self, feed: &Values) -> Result<(), Refusal> {
        let mut finite = false;
        for (row, name) in [(feed.zeros(), "zeros"), (feed.highest(), "the highest values")] {
            finite |= self.try_row(&row, |words| {
                Refusal::new(SOURCE, format!("the model fails on an image of {name}: {words}"))
            })?;
        }
        if finite {
            return Ok(());
        }
        let sentence = "the model gives values that are not finite for a plain image";
        Err(Refusal::new(SOURCE, sentence))
    }

    /// On a tensor of zeros and on one of ones. A model need have a vector for neither, so none is missed: one that
    /// divides by the length of its input has none for zeros.
    fn probe_tensors(&self, feed: &Values) -> Result<(), Refusal> {
        for (row, name) in [(feed.zeros(), "zeros"), (feed.ones(), "ones")] {
            self.try_row(&row, |words| {
                Refusal::new(SOURCE, format!("the model fails on a tensor of {name}: {words}"))
            })?;
        }
        Ok(())
    }

    /// On the row of unknown ids and on that of the last id. What of the table could be seen has been compared already.
    fn probe_categories(&self, feed: &CategoryFeed) -> Result<(), Refusal> {
        self.try_row(&feed.unknown(), |words| {
            Refusal::new(SOURCE, format!("the model fails on row 0, that of unknown ids: {words}"))
        })?;
        self.try_row(&feed.last_row(), |words| {
            let sentence = format!(
                "does not fit the model: it has {0} ids, but the model fails on row {0}, though not on row 0: {words}",
                feed.last
            );
            Refusal::new(VOCABULARY, sentence)
        })?;
        Ok(())
    }

    /// Runs one row; whether its vector is finite.
    fn try_row(&self, row: &Row, refuse: impl Fn(String) -> Refusal) -> Result<bool, Refusal> {
        match self.run(&[row]) {
            Ok(vectors) => Ok(vectors.iter().all(|vector| match vector {
                Ok(_) => true,
                Err(error) => error.kind != ErrorKind::NotFinite,
            })),
            Err(RunError::Dimensions(size)) => {
                Err(other_dimensions(self.dimensions, &self.output, size))
            }
            Err(RunError::Runtime(words)) => Err(refuse(words)),
        }
    }
}
