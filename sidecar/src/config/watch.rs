//! Changes of the files that cache policies come from: it reads them, tells what is new, and judges it for the model that
//! runs. What becomes of a policy then is not its affair.
//!
//! Files are read again and again, rather than watched by inotify: a node allows each user few instances of it, file
//! systems mounted over a network do not tell of changes, and a mounted ConfigMap changes by a symlink far above the file.
//! Reading a small file is cheap.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use embark_crds::{
    contract::{CachePolicy, Contract, ServingConfig, files},
    manifest,
};

use super::{Found, ModelConfig, Origin, file, mounted};
use crate::{
    metrics::Reload,
    model::{
        refusal::contained,
        support::{self, Offered},
    },
    policy,
};

/// The file of one model's cache policy, and what is known of it.
#[derive(Debug)]
pub struct Watch {
    origin: Origin,
    serving: ServingConfig,
    /// What the last look saw.
    last: Option<Seen>,
    /// What was told of last.
    told: Option<Seen>,
}

/// What is new about a file.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It holds a policy for the model.
    Good {
        /// The policy.
        policy: CachePolicy,
        /// What else of the file is another than what runs, as a sentence; or empty.
        rest: String,
    },
    /// It holds none.
    Bad {
        /// [`Reload::Refused`] or [`Reload::Unreadable`].
        outcome: Reload,
        /// Why, with the file's path.
        sentence: String,
    },
}

/// What is found where a file should be.
#[derive(Clone, Debug)]
enum Look {
    /// Nothing; a sentence.
    Absent(String),
    /// Something that cannot be read whole; a sentence.
    Fault(String),
    /// These bytes.
    Bytes(PathBuf, Arc<[u8]>),
}

/// As much of a look as is remembered: the bytes' hash, or the sentence.
type Seen = Result<[u8; 32], String>;

/// What a file says for a model.
struct Judged {
    policy: CachePolicy,
    rest: String,
}

/// Looks at every file once, and gives what is new, by the number of its watch. May block.
pub fn look(watches: &mut [Watch]) -> Vec<(usize, News)> {
    // Many models may stand in one file.
    let mut looks: BTreeMap<PathBuf, Look> = BTreeMap::new();
    let mut news = Vec::new();
    for (number, watch) in watches.iter_mut().enumerate() {
        let (path, limit) = watch.origin.file();
        let look = looks.entry(path).or_insert_with_key(|path| read(path, limit));
        news.extend(watch.consider(look).map(|new| (number, new)));
    }
    news
}

// === impl Watch ===

impl Watch {
    /// A watch over a model's policy; `None` when it came from something that is no file, such as a pipe, and cannot be
    /// read again.
    pub fn of(model: &ModelConfig) -> Option<Self> {
        let is_readable = match &model.origin {
            Origin::Manifest(path) => path.is_file(),
            Origin::Folder(_) => true,
        };
        is_readable.then(|| Watch {
            origin: model.origin.clone(),
            serving: model.contract.serving.clone(),
            last: None,
            told: None,
        })
    }

    /// What is new about it, if anything is.
    fn consider(&mut self, look: &Look) -> Option<News> {
        self.is_new(look).then(|| self.judge(look))
    }

    /// Whether this was not told before, and is no passing state: a file that is missing may be on its way, while a
    /// symlink is swapped, and a manifest edited in place may be half written. Both count only when they are seen twice.
    fn is_new(&mut self, look: &Look) -> bool {
        let seen = look.seen();
        let again = self.last.replace(seen.clone()).is_some_and(|last| last == seen);
        let may_pass = match (&self.origin, look) {
            (_, Look::Absent(_)) | (Origin::Manifest(_), _) => true,
            (Origin::Folder(_), Look::Fault(_) | Look::Bytes(..)) => false,
        };
        if (may_pass && !again) || self.told.as_ref() == Some(&seen) {
            return false;
        }
        self.told = Some(seen);
        true
    }

    fn judge(&self, look: &Look) -> News {
        let (path, bytes) = match look {
            Look::Bytes(path, bytes) => (path, bytes),
            Look::Absent(sentence) | Look::Fault(sentence) => {
                let sentence = sentence.clone();
                return News::Bad { outcome: Reload::Unreadable, sentence };
            }
        };
        let judged = contained(|| match &self.origin {
            Origin::Manifest(_) => of_manifest(path, bytes, &self.serving),
            Origin::Folder(_) => of_folder(path, bytes, &self.serving),
        });
        match judged {
            Ok(Ok(Judged { policy, rest })) => News::Good { policy, rest },
            Ok(Err(sentence)) => News::Bad { outcome: Reload::Refused, sentence },
            Err(panic) => {
                let sentence = format!("{}: cannot be read: {panic}", path.display());
                News::Bad { outcome: Reload::Refused, sentence }
            }
        }
    }
}

// === impl Origin ===

impl Origin {
    /// The file that is in force, and the most bytes that are read of it.
    fn file(&self) -> (PathBuf, u64) {
        match self {
            Origin::Manifest(path) => (path.clone(), manifest::MAX_BYTES as u64),
            Origin::Folder(folder) => {
                let newest = mounted::newest(folder).unwrap_or_else(|| folder.clone());
                (newest, files::MAX_FILE_BYTES)
            }
        }
    }
}

// === impl Look ===

impl Look {
    fn seen(&self) -> Seen {
        match self {
            Look::Bytes(_, bytes) => Ok(*blake3::hash(bytes).as_bytes()),
            Look::Absent(sentence) | Look::Fault(sentence) => Err(sentence.clone()),
        }
    }
}

// === free functions ===

/// Reads a file, if it is one: to open a pipe would wait for its writer.
fn read(path: &Path, limit: u64) -> Look {
    match fs::metadata(path) {
        // A folder stands for the file that it has none of.
        Ok(found) if found.is_dir() => Look::Absent(mounted::nothing_to_read(path)),
        Ok(found) if !found.is_file() => Look::Fault(format!("{}: is no file", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Look::Absent(format!("{}: is not there any more", path.display()))
        }
        Err(error) => Look::Fault(file::unreadable(path, &error)),
        Ok(_) => match file::read(path, limit) {
            Ok(bytes) => Look::Bytes(path.to_owned(), bytes.into()),
            Err(sentence) => Look::Fault(sentence),
        },
    }
}

fn of_folder(path: &Path, bytes: &[u8], serving: &ServingConfig) -> Result<Judged, String> {
    let policy = mounted::policy(path, bytes, serving)?;
    let contract = Contract { serving: serving.clone(), policy };
    let refusals = support::unsupported(&contract, Offered::ALL);
    match refusals.first() {
        None => Ok(Judged { policy: contract.policy, rest: String::new() }),
        Some(refusal) => Err(format!("{}: {refusal}{}", path.display(), more(refusals.len()))),
    }
}

/// What `serve` would be refused for is refused here, all of the model's part of the file.
fn of_manifest(path: &Path, bytes: &[u8], serving: &ServingConfig) -> Result<Judged, String> {
    let first = |sentences: Vec<String>| {
        let first = sentences.first().cloned().unwrap_or_default();
        format!("{first}{}", more(sentences.len()))
    };
    let found = super::parse(path, bytes.to_owned()).map_err(first)?;
    let of_model = |found: &Found| found.manifest.metadata.name == serving.name;
    let mut found = found.into_iter().filter(of_model);
    let name = &serving.name;
    let manifest = match (found.next(), found.next()) {
        (Some(found), None) => found.manifest,
        (None, _) => return Err(format!("{}: has no model {name:?} any more", path.display())),
        (Some(_), Some(_)) => {
            return Err(format!("{}: has model {name:?} more than once", path.display()));
        }
    };
    let ModelConfig { contract, .. } =
        super::model(path, &manifest, Offered::ALL).map_err(first)?;
    policy::fits(&contract.policy, serving.output.dimensions)
        .map_err(|refusal| format!("{}: {name}: {refusal}", path.display()))?;
    let rest = match differing(serving, &contract.serving).as_slice() {
        [] => String::new(),
        fields => format!(
            "{}: {name}: {} {} changed, which takes a restart; the cache policy is followed",
            path.display(),
            fields.join(", "),
            if fields.len() == 1 { "has" } else { "have" },
        ),
    };
    Ok(Judged { policy: contract.policy, rest })
}

/// The fields that are another; not their values, for a source may hold a password.
fn differing(running: &ServingConfig, asked: &ServingConfig) -> Vec<&'static str> {
    let (model, size) = (running.model != asked.model, running.artifact_size_limit);
    let fields = [
        ("spec.model.source", model),
        ("spec.model.sizeLimit", size != asked.artifact_size_limit),
        ("spec.model.output", running.output != asked.output),
        ("spec.input", running.input != asked.input),
        ("spec.cache.mode, memory or disk", running.cache != asked.cache),
        ("spec.batching", running.batching != asked.batching),
        ("spec.selfTest", running.self_test != asked.self_test),
        ("spec.endpoint", running.endpoint != asked.endpoint),
    ];
    fields.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
}

/// How many sentences there are beside the first.
fn more(sentences: usize) -> String {
    match sentences {
        0 | 1 => String::new(),
        many => format!(" (and {} more)", many - 1),
    }
}
