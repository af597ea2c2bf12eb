//! Files of secrets. Whoever issues them replaces them while the process runs, so they are read again and again, as
//! cache policies are, rather than watched: a mounted Secret changes by a symlink far above the file.

pub mod pem;
pub mod tokens;

use std::{fs, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use blake3::Hash;
use parking_lot::Mutex;

use crate::config::file;

/// The most bytes of one file: far more than a chain of certificates has.
const MAX_BYTES: u64 = 1024 * 1024;

/// A file that an argument names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The argument, such as `--tls-key`.
    pub argument: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// What a file holds. Its bytes are in no sentence.
pub struct Content<'a> {
    named: &'a Named,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Makes of files' contents what is used.
pub type Parse<T> = fn(&[Content]) -> Result<T, String>;

/// What was made of some files, and is made anew when they change.
pub struct Rotating<T> {
    files: Vec<Named>,
    parse: Parse<T>,
    current: ArcSwap<T>,
    last: Mutex<Last>,
}

/// What is new about files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// They changed, and what they hold now is used.
    Replaced,
    /// They hold what is used, after they did not.
    Back,
    /// They cannot be used, and what they held before still is; why.
    Refused(String),
}

struct Last {
    in_force: Hash,
    /// What the last look found wrong.
    wrong: Option<String>,
    /// What was told of that.
    told: Option<String>,
}

// === impl Named ===

impl Named {
    /// Reads it, if it is a file: to open a pipe would wait for its writer.
    ///
    /// # Errors
    /// It cannot be read, or is too large; a sentence with the argument and the path.
    pub fn read(&self) -> Result<Content<'_>, String> {
        let of_argument = |sentence: String| format!("{}: {sentence}", self.argument);
        let found = fs::metadata(&self.path);
        let found = found.map_err(|error| of_argument(file::unreadable(&self.path, &error)))?;
        if !found.is_file() {
            return Err(self.wrong(&"is not a regular file"));
        }
        let bytes = file::read(&self.path, MAX_BYTES).map_err(of_argument)?;
        Ok(Content { named: self, bytes })
    }

    fn wrong(&self, what: &dyn std::fmt::Display) -> String {
        format!("{}: {}: {what}", self.argument, self.path.display())
    }
}

// === impl Content ===

impl Content<'_> {
    /// The sentence of what is wrong with it.
    pub fn wrong(&self, what: impl std::fmt::Display) -> String {
        self.named.wrong(&what)
    }
}

// === impl Rotating ===

impl<T> Rotating<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// What is wrong with them, a sentence with the argument and the path.
    pub fn read(files: Vec<Named>, parse: Parse<T>) -> Result<Self, String> {
        let contents = read_all(&files)?;
        let in_force = hash(&contents);
        let current = ArcSwap::from_pointee(parse(&contents)?);
        drop(contents);
        let last = Mutex::new(Last { in_force, wrong: None, told: None });
        Ok(Rotating { files, parse, current, last })
    }

    /// What is in use.
    pub fn load(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again, and gives what is new. May block.
    pub fn look(&self) -> Option<News> {
        let found = read_all(&self.files);
        let mut last = self.last.lock();
        let contents = match found {
            Ok(contents) => contents,
            Err(sentence) => return last.refuse(sentence),
        };
        let found = hash(&contents);
        if found == last.in_force {
            last.wrong = None;
            return last.told.take().map(|_| News::Back);
        }
        match (self.parse)(&contents) {
            Ok(made) => {
                self.current.store(Arc::new(made));
                *last = Last { in_force: found, wrong: None, told: None };
                Some(News::Replaced)
            }
            Err(sentence) => last.refuse(sentence),
        }
    }

    /// Why the files as they are now are not what is used; or empty.
    pub fn trouble(&self) -> String {
        self.last.lock().told.clone().unwrap_or_default()
    }
}

// === impl Last ===

impl Last {
    /// Tells of what is wrong once, when it was seen twice: files that are replaced one after the other pass through states
    /// that do not fit each other.
    fn refuse(&mut self, sentence: String) -> Option<News> {
        let again = self.wrong.replace(sentence.clone()).is_some_and(|last| last == sentence);
        if !again || self.told.as_ref() == Some(&sentence) {
            return None;
        }
        self.told = Some(sentence.clone());
        Some(News::Refused(sentence))
    }
}

// === free functions ===

fn read_all(files: &[Named]) -> Result<Vec<Content<'_>>, String> {
    files.iter().map(Named::read).collect()
}

fn hash(contents: &[Content]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for content in contents {
        hasher.update(&(content.bytes.len() as u64).to_le_bytes());
        hasher.update(&content.bytes);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that two files make together.
    fn sum(contents: &[Content]) -> Result<u64, String> {
        let number = |content: &Content| {
            let text = String::from_utf8_lossy(&content.bytes).trim().to_owned();
            text.parse::<u64>().map_err(|_| content.wrong("is no number"))
        };
        Ok(contents.iter().map(number).collect::<Result<Vec<_>, _>>()?.iter().sum())
    }

    #[test]
    fn what_files_hold_is_used_when_they_change_and_stays_when_they_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        let named = |argument, name| Named { argument, path: path(name) };
        let files = || vec![named("--a", "a"), named("--b", "b")];

        let missing = Rotating::read(files(), sum).err().unwrap();
        assert!(missing.starts_with(&format!("--a: {}: cannot be read", path("a").display())));
        write("a", "1");
        write("b", "word");
        let wrong = Rotating::read(files(), sum).err().unwrap();
        assert_eq!(wrong, format!("--b: {}: is no number", path("b").display()));
        write("b", "2");
        let rotating = Rotating::read(files(), sum).unwrap();
        assert_eq!((*rotating.load(), rotating.look()), (3, None));

        write("a", "10");
        assert_eq!((rotating.look(), *rotating.load()), (Some(News::Replaced), 12));
        write("b", "word");
        assert_eq!((rotating.look(), rotating.trouble()), (None, String::new()), "it may pass");
        assert_eq!(rotating.look(), Some(News::Refused(wrong.clone())));
        assert_eq!((rotating.look(), *rotating.load(), rotating.trouble()), (None, 12, wrong));
        fs::remove_file(path("b")).unwrap();
        assert_eq!(rotating.look(), None);
        assert!(matches!(rotating.look(), Some(News::Refused(_))), "something else is wrong");
        write("b", "2");
        assert_eq!((rotating.look(), rotating.trouble()), (Some(News::Back), String::new()));
        assert_eq!(rotating.look(), None);
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        fs::write(&path, vec![b'1'; 1024 * 1024 + 1]).unwrap();
        for (path, what) in [(path, "more than 1048576"), (folder.path().into(), "regular file")] {
            let error = Rotating::read(vec![Named { argument: "--a", path }], sum).err().unwrap();
            assert!(error.contains(what), "{error}");
        }
    }
}
