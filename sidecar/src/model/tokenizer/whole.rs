//! Texts that are not cut: read in windows, or refused where they have more tokens than a row. Pure but for the frame, which
//! is found out from a tokenizer.

use super::super::refusal::Refusal;

/// The most windows of one text. What is behind them is not read, and the result says that it was cut.
pub const MAX_WINDOWS: usize = 64;
/// The most tokens that are counted of a text that is refused for having too many.
pub(super) const MAX_COUNTED: usize = 65_536;
/// Windows share this part of their tokens with the one before.
const OVERLAP: usize = 8;
/// The field that says what is done with long texts.
const OVERLONG: &str = "spec.input.text.overlong";

/// What a tokenizer puts before and behind the tokens of a text, and how many tokens a row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    head: Vec<u32>,
    tail: Vec<u32>,
    max_tokens: usize,
}

/// How a text is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) rows: Vec<Vec<u32>>,
    /// Whether there are more tokens than the windows hold.
    pub(super) is_cut: bool,
}

// === impl Frame ===

impl Frame {
    /// The frame that turns the tokens of a text, `plain`, into its row, `framed`.
    ///
    /// # Errors
    /// The row is made in another way.
    pub(super) fn of(plain: &[u32], framed: &[u32], max_tokens: usize) -> Result<Self, Refusal> {
        let heads = 0..=framed.len().saturating_sub(plain.len());
        let same = |head: &usize| !plain.is_empty() && framed[*head..].starts_with(plain);
        let Some(head) = heads.into_iter().find(same) else {
            let sentence = "must be Truncate: the tokenizer does not put its special tokens before and behind a text \
                            alone";
            return Err(Refusal::new(OVERLONG, sentence));
        };
        let (head, rest) = framed.split_at(head);
        let tail = rest[plain.len()..].to_vec();
        Ok(Frame { head: head.to_vec(), tail, max_tokens })
    }

    /// Tokens of a text that fit into a row; at least 1, as the tokenizer was found to leave room.
    pub(super) fn room(&self) -> usize {
        self.max_tokens.saturating_sub(self.special()).max(1)
    }

    /// Tokens that are put around a text.
    pub(super) fn special(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// The row of a text that fits.
    pub(super) fn row(&self, ids: &[u32]) -> Vec<u32> {
        [&self.head, ids, &self.tail].concat()
    }

    /// Tokens of a text, without a prompt, that its windows hold together.
    pub(super) fn most(&self) -> usize {
        let room = self.room();
        room + (MAX_WINDOWS - 1) * (room - room / OVERLAP)
    }

    /// Tokens of a prompt that leave half of each window to the text.
    pub(super) fn prompt_room(&self) -> usize {
        self.room() / 2
    }

    /// The windows of a text of which the first `prompt` tokens are put into each.
    pub(super) fn windows(&self, ids: &[u32], prompt: usize) -> Windows {
        let (prompt, text) = ids.split_at(prompt.min(self.prompt_room()).min(ids.len()));
        let room = self.room() - prompt.len();
        let step = room - room / OVERLAP;
        let (mut rows, mut start) = (Vec::new(), 0);
        loop {
            let end = text.len().min(start + room);
            rows.push(self.row(&[prompt, &text[start..end]].concat()));
            if end == text.len() || rows.len() == MAX_WINDOWS {
                return Windows { rows, is_cut: end < text.len() };
            }
            start += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(max_tokens: usize) -> Frame {
        Frame::of(&[5, 6], &[1, 5, 6, 2], max_tokens).unwrap()
    }

    #[test]
    fn a_frame_is_what_stands_around_a_text() {
        assert_eq!(frame(9), Frame { head: vec![1], tail: vec![2], max_tokens: 9 });
        let bare = Frame::of(&[5, 6], &[5, 6], 9).unwrap();
        assert_eq!((bare.room(), bare.special()), (9, 0));
        let sentence = Frame::of(&[5, 6], &[1, 5, 2, 6], 9).unwrap_err().to_string();
        assert!(sentence.starts_with("spec.input.text.overlong: must be Truncate: "), "{sentence}");
        assert!(Frame::of(&[], &[1, 2], 9).is_err());
    }

    #[test]
    fn a_text_that_fits_is_one_window() {
        let windows = frame(10).windows(&[7; 8], 0);
        assert_eq!(
            windows,
            Windows { rows: vec![vec![1, 7, 7, 7, 7, 7, 7, 7, 7, 2]], is_cut: false }
        );
        assert_eq!(frame(10).windows(&[], 0).rows, [[1, 2]]);
    }

    #[test]
    fn windows_share_an_eighth_of_their_room() {
        let ids: Vec<u32> = (100..122).collect();
        let rows = frame(10).windows(&ids, 0).rows;
        let inner: Vec<&[u32]> = rows.iter().map(|row| &row[1..row.len() - 1]).collect();
        assert_eq!(inner, [&ids[0..8], &ids[7..15], &ids[14..22]]);
        assert!(rows.iter().all(|row| row[0] == 1 && row.ends_with(&[2])));
    }

    #[test]
    fn a_prompt_is_put_into_every_window() {
        let ids: Vec<u32> = (100..116).collect();
        let rows = frame(10).windows(&ids, 2).rows;
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows.iter().all(|row| row[..3] == [1, 100, 101]), "{rows:?}");
        assert_eq!([rows[0][3], rows[1][3], rows[2][3]], [102, 108, 114]);
    }

    #[test]
    fn every_token_is_in_a_window_however_small_they_are() {
        for max_tokens in 3..40 {
            let frame = frame(max_tokens);
            let ids: Vec<u32> = (100..).take(frame.most()).collect();
            let windows = frame.windows(&ids, 0);
            assert!(!windows.is_cut && windows.rows.len() == MAX_WINDOWS, "{max_tokens}");
            assert!(windows.rows.iter().all(|row| row.len() <= max_tokens));
            let mut seen: Vec<u32> = windows.rows.concat();
            seen.retain(|id| *id >= 100);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, ids);
            let longer = frame.windows(&[&ids[..], &[7]].concat(), 0);
            assert!(longer.is_cut && longer.rows.len() == MAX_WINDOWS);
        }
    }
}
