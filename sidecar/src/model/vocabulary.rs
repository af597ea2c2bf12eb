//! The ids that a model of categories knows: a text file with one id on each line. The id on line n, counted from 1, is
//! row n of the model's table; row 0 is for every other.
//!
//! The file stays as it is in memory; what is added to it are some bytes a line, not a map of strings.

use std::hash::{BuildHasher as _, RandomState};

use bytes::Bytes;

use super::refusal::{Refusal, quote};

/// The field of the file.
pub const VOCABULARY: &str = "spec.input.categorical.vocabulary";
/// The row of an id that is not in the file.
pub const UNKNOWN_ROW: u32 = 0;
/// The most bytes of an id, in the file and in a request.
pub const MAX_ID_BYTES: usize = 1024;

/// The most ids of a file.
const MAX_IDS: usize = 1 << 24;
/// The most bytes of a file.
const MAX_FILE_BYTES: usize = 1 << 30;
/// What editors of Windows put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A slot of the index that holds no row.
const EMPTY: u32 = 0;

/// A loaded vocabulary. It is shared between threads.
#[derive(Debug)]
pub struct Vocabulary {
    file: Bytes,
    /// Where each line begins, and where the last one ends.
    starts: Vec<u32>,
    /// Rows by the hash of their id, at most every second slot taken. The hash is keyed anew in each process, so that no
    /// file and no caller can choose ids that lie in one place.
    slots: Vec<u32>,
    hasher: RandomState,
}

// === impl Vocabulary ===

impl Vocabulary {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no UTF-8, has no ids or more than may be, or a line is empty, too long or there twice; the line is named.
    pub fn load(file: Bytes) -> Result<Self, Refusal> {
        if file.len() > MAX_FILE_BYTES {
            return Err(refuse(format!("the file has more than {MAX_FILE_BYTES} bytes")));
        }
        if let Err(error) = std::str::from_utf8(&file) {
            let before = file[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            return Err(refuse(format!("line {} is not UTF-8", before + 1)));
        }
        let starts = starts(&file)?;
        let ids = starts.len() - 1;
        if ids == 0 {
            return Err(refuse("the file has no ids".to_owned()));
        }
        let slots = vec![EMPTY; (2 * ids).next_power_of_two()];
        let mut vocabulary = Vocabulary { file, starts, slots, hasher: RandomState::new() };
        for row in 1..=vocabulary.len() {
            vocabulary.insert(row)?;
        }
        Ok(vocabulary)
    }

    /// How many ids there are, which is the row of the last one.
    pub fn len(&self) -> u32 {
        u32::try_from(self.starts.len() - 1).unwrap_or(u32::MAX)
    }

    /// Whether there are none; there always are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of an id; `None`: it is not in the file.
    pub fn row(&self, id: &[u8]) -> Option<u32> {
        self.find(id).ok()
    }

    fn insert(&mut self, row: u32) -> Result<(), Refusal> {
        let id = self.id(row);
        if id.is_empty() {
            return Err(refuse(format!("line {row} is empty; each line has an id")));
        }
        if id.len() > MAX_ID_BYTES {
            let sentence =
                format!("line {row} has {} bytes; at most {MAX_ID_BYTES} are allowed", id.len());
            return Err(refuse(sentence));
        }
        match self.find(id) {
            Err(slot) => {
                self.slots[slot] = row;
                Ok(())
            }
            Ok(first) => {
                let id = quote(String::from_utf8_lossy(id));
                Err(refuse(format!("line {row} has the id of line {first} again, {id:?}")))
            }
        }
    }

    /// The row of an id, or the slot where it would stand.
    fn find(&self, id: &[u8]) -> Result<u32, usize> {
        let last = self.slots.len() - 1;
        let hash = self.hasher.hash_one(id) & last as u64;
        let mut slot = usize::try_from(hash).unwrap_or(0);
        // Half of the slots are empty, so it ends.
        loop {
            match self.slots[slot] {
                EMPTY => return Err(slot),
                row if self.id(row) == id => return Ok(row),
                _ => slot = (slot + 1) & last,
            }
        }
    }

    /// The id on a line, counted from 1.
    fn id(&self, row: u32) -> &[u8] {
        let line = row as usize;
        let line = &self.file[self.starts[line - 1] as usize..self.starts[line] as usize];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

// === free functions ===

fn refuse(sentence: String) -> Refusal {
    Refusal::new(VOCABULARY, sentence)
}

/// Where each line of a file begins, and where the last one ends. Lines are counted before anything is kept of them.
fn starts(file: &[u8]) -> Result<Vec<u32>, Refusal> {
    let head = if file.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let body = &file[head..];
    let ends = || body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let unended = usize::from(body.last().is_some_and(|byte| *byte != b'\n'));
    let lines = ends().count() + unended;
    if lines > MAX_IDS {
        return Err(refuse(format!("the file has {lines} lines; at most {MAX_IDS} are allowed")));
    }
    let at = |place: usize| u32::try_from(head + place).unwrap_or(u32::MAX);
    let mut starts = Vec::with_capacity(lines + 1);
    starts.push(at(0));
    starts.extend(ends().map(|(end, _)| at(end + 1)));
    if unended > 0 {
        starts.push(at(body.len()));
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(file: &'static [u8]) -> Result<Vocabulary, String> {
        Vocabulary::load(Bytes::from_static(file)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_id_on_a_line_is_the_row_of_its_number() {
        for file in [&b"a\nb c\n\xc3\xa4\n"[..], b"a\nb c\n\xc3\xa4", b"a\r\nb c\r\n\xc3\xa4\r\n"] {
            let vocabulary = load(file).unwrap();
            assert_eq!(vocabulary.len(), 3);
            let rows =
                ["a", "b c", "ä", "b", "", "c", "a\n"].map(|id| vocabulary.row(id.as_bytes()));
            assert_eq!(rows, [Some(1), Some(2), Some(3), None, None, None, None]);
        }
    }

    #[test]
    fn a_mark_before_the_text_is_no_part_of_the_first_id() {
        let vocabulary = load(b"\xef\xbb\xbfa\nb").unwrap();
        assert_eq!((vocabulary.row(b"a"), vocabulary.row(b"b")), (Some(1), Some(2)));
    }

    #[test]
    fn ids_are_their_bytes() {
        let vocabulary = load(b"a\nA\n a\na \n1\n01\n").unwrap();
        let rows = ["a", "A", " a", "a ", "1", "01"].map(|id| vocabulary.row(id.as_bytes()));
        assert_eq!(rows, [1, 2, 3, 4, 5, 6].map(Some));
    }

    #[test]
    fn what_is_no_vocabulary_is_refused_by_its_line() {
        let long: &'static [u8] =
            Box::leak(format!("a\n{}", "x".repeat(1025)).into_boxed_str()).as_bytes();
        let cases = [
            (&b""[..], "the file has no ids"),
            (b"\xef\xbb\xbf", "the file has no ids"),
            (b"\n", "line 1 is empty; each line has an id"),
            (b"a\n\nb\n", "line 2 is empty; each line has an id"),
            (b"a\nb\n\n", "line 3 is empty; each line has an id"),
            (b"a\n\r\nb", "line 2 is empty; each line has an id"),
            (b"a\nb\na\n", "line 3 has the id of line 1 again, \"a\""),
            (b"a\r\nb\na", "line 3 has the id of line 1 again, \"a\""),
            (b"a\nb\xff\n", "line 2 is not UTF-8"),
            (b"\xff\xfea\0", "line 1 is not UTF-8"),
            (long, "line 2 has 1025 bytes; at most 1024 are allowed"),
        ];
        for (file, expected) in cases {
            let expected = format!("spec.input.categorical.vocabulary: {expected}");
            assert_eq!(load(file).unwrap_err(), expected, "{:?}", file.escape_ascii().to_string());
        }
    }

    #[test]
    fn more_lines_than_may_be_are_refused_before_they_are_kept() {
        let error = Vocabulary::load(vec![b'\n'; MAX_IDS + 1].into()).unwrap_err().to_string();
        assert!(error.ends_with("has 16777217 lines; at most 16777216 are allowed"), "{error}");
    }

    proptest! {
        #[test]
        fn every_id_of_a_file_has_its_row_and_no_other_has_one(
            ids in prop::collection::hash_set("[a-c]{1,4}|[^\r\n]{1,9}", 1..200),
            others in prop::collection::vec("[a-c]{1,5}", 0..50),
        ) {
            let ids: Vec<String> = ids.into_iter().filter(|id| !id.starts_with('\u{feff}')).collect();
            prop_assume!(!ids.is_empty());
            let vocabulary = Vocabulary::load(ids.join("\n").into()).unwrap();
            prop_assert_eq!(vocabulary.len() as usize, ids.len());
            for (row, id) in (1_u32..).zip(&ids) {
                prop_assert_eq!(vocabulary.row(id.as_bytes()), Some(row));
            }
            for other in others.iter().filter(|other| !ids.contains(other)) {
                prop_assert_eq!(vocabulary.row(other.as_bytes()), None);
            }
        }
    }
}
