//! Changes of the files that models are written down in: it reads them, tells what is new, and judges it. What becomes of it
//! then is not its affair.
//!
//! Files are read again and again, rather than watched by inotify: a node allows each user few instances of it, file
//! systems mounted over a network do not tell of changes, and a mounted ConfigMap changes by a symlink far above the file.
//! Reading a small file is cheap.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use embark_crds::{
    contract::{CachePolicy, Contract, ServingConfig, files},
    manifest,
};

use super::{Found, ModelConfig, Origin, Unread, file, mounted};
use crate::{
    metrics::Reload,
    model::{
        refusal::contained,
        support::{self, Offered},
    },
    policy,
};

/// The files that one model is written down in, and what is known of them.
#[derive(Debug)]
pub struct Watch {
    origin: Origin,
    /// As it was when the process began: it gives the name, and judges a policy whose contract cannot be read.
    serving: ServingConfig,
    offered: Offered,
    /// What the last look saw.
    last: Option<Seen>,
    /// What was told of last.
    told: Option<Seen>,
}

/// What is new about a model's files.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// They hold a policy for the model.
    Good {
        /// The policy.
        policy: CachePolicy,
        /// What is to be served; or why that cannot be, a sentence.
        serving: Result<Box<ServingConfig>, String>,
    },
    /// They hold none.
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

/// As much of a look at each file as is remembered: the bytes' hash, or the sentence.
type Seen = Vec<Result<[u8; 32], String>>;

/// What files say for a model.
#[derive(Debug)]
struct Judged {
    policy: CachePolicy,
    serving: Result<Box<ServingConfig>, String>,
}

/// What comes into the folders that models were found in. It is served after a restart.
#[derive(Clone, Debug)]
pub struct Arrivals {
    folders: Vec<PathBuf>,
    /// What a folder has that may be a model.
    list: fn(&Path) -> Vec<PathBuf>,
    known: BTreeSet<PathBuf>,
}

/// Looks at every file once, and gives what is new, by the number of its watch. May block.
pub fn look(watches: &mut [Watch]) -> Vec<(usize, News)> {
    // Many models may stand in one file.
    let mut looks: BTreeMap<PathBuf, Look> = BTreeMap::new();
    let mut news = Vec::new();
    for (number, watch) in watches.iter_mut().enumerate() {
        let seen = watch.origin.files().into_iter().map(|(path, limit)| {
            looks.entry(path).or_insert_with_key(|path| read(path, limit)).clone()
        });
        let seen: Vec<Look> = seen.collect();
        news.extend(watch.consider(&seen).map(|new| (number, new)));
    }
    news
}

/// Reads again what could not be read: what can be read now; what cannot yet goes back into `unread`, with what is said of
/// it now. May block.
pub fn look_again(unread: &mut Vec<Unread>, offered: Offered) -> Vec<ModelConfig> {
    let mut models = Vec::new();
    for before in std::mem::take(unread) {
        match mounted::model(&before.folder, offered) {
            Ok(model) => models.push(model),
            Err(now) => unread.push(now),
        }
    }
    models
}

// === impl Watch ===

impl Watch {
    /// A watch over a model; `None` when it came from something that is no file, such as a pipe, and cannot be read again.
    /// Another version of it may ask for what is offered.
    pub fn of(model: &ModelConfig, offered: Offered) -> Option<Self> {
        let is_readable = match &model.origin {
            Origin::Manifest(path) => path.is_file(),
            Origin::Folder(_) => true,
        };
        is_readable.then(|| Watch {
            origin: model.origin.clone(),
            serving: model.contract.serving.clone(),
            offered,
            last: None,
            told: None,
        })
    }

    /// What is new about it, if anything is.
    fn consider(&mut self, looks: &[Look]) -> Option<News> {
        self.is_new(looks).then(|| self.judge(looks))
    }

    /// Whether this was not told before, and is no passing state: a file that is missing may be on its way, while a
    /// symlink is swapped, and a manifest edited in place may be half written. Both count only when they are seen twice.
    fn is_new(&mut self, looks: &[Look]) -> bool {
        let seen: Seen = looks.iter().map(Look::seen).collect();
        let again = self.last.replace(seen.clone()).is_some_and(|last| last == seen);
        let may_pass = matches!(self.origin, Origin::Manifest(_))
            || looks.iter().any(|look| matches!(look, Look::Absent(_)));
        if (may_pass && !again) || self.told.as_ref() == Some(&seen) {
            return false;
        }
        self.told = Some(seen);
        true
    }

    fn judge(&self, looks: &[Look]) -> News {
        let (path, bytes) = match looks.first() {
            Some(Look::Bytes(path, bytes)) => (path, bytes),
            Some(Look::Absent(sentence) | Look::Fault(sentence)) => {
                let sentence = sentence.clone();
                return News::Bad { outcome: Reload::Unreadable, sentence };
            }
            None => {
                let sentence = "there is no file to read".to_owned();
                return News::Bad { outcome: Reload::Unreadable, sentence };
            }
        };
        let judged = contained(|| match &self.origin {
            Origin::Manifest(_) => self.of_manifest(path, bytes),
            Origin::Folder(_) => self.of_folder((path, bytes), looks.get(1)),
        });
        match judged {
            Ok(Ok(Judged { policy, serving })) => News::Good { policy, serving },
            Ok(Err(sentence)) => News::Bad { outcome: Reload::Refused, sentence },
            Err(panic) => {
                let sentence = format!("{}: cannot be read: {panic}", path.display());
                News::Bad { outcome: Reload::Refused, sentence }
            }
        }
    }

    /// What `serve` would be refused for is refused here, all of the model's part of the file.
    fn of_manifest(&self, path: &Path, bytes: &[u8]) -> Result<Judged, String> {
        let first = |sentences: Vec<String>| {
            let first = sentences.first().cloned().unwrap_or_default();
            format!("{first}{}", more(sentences.len()))
        };
        let found = super::parse(path, bytes.to_owned()).map_err(first)?;
        let name = &self.serving.name;
        let of_model = |found: &Found| found.manifest.metadata.name == *name;
        let mut found = found.into_iter().filter(of_model);
        let manifest = match (found.next(), found.next()) {
            (Some(found), None) => found.manifest,
            (None, _) => return Err(format!("{}: has no model {name:?} any more", path.display())),
            (Some(_), Some(_)) => {
                return Err(format!("{}: has model {name:?} more than once", path.display()));
            }
        };
        let ModelConfig { contract: Contract { serving, policy }, .. } =
            super::model(path, &manifest, self.offered).map_err(first)?;
        policy::fits(&policy, serving.output.dimensions)
            .map_err(|refusal| format!("{}: {name}: {refusal}", path.display()))?;
        Ok(Judged { policy, serving: Ok(Box::new(serving)) })
    }

    /// The two parts come and go by themselves, and each is judged by itself as far as it can be.
    fn of_folder(
        &self,
        (path, bytes): (&Path, &[u8]),
        serving: Option<&Look>,
    ) -> Result<Judged, String> {
        let serving = match serving {
            Some(Look::Bytes(path, bytes)) => self.contract(path, bytes),
            Some(Look::Absent(sentence) | Look::Fault(sentence)) => Err(sentence.clone()),
            None => Err("there is no file to read".to_owned()),
        };
        let judging = serving.as_ref().unwrap_or(&self.serving);
        let policy = mounted::policy(path, bytes, judging)?;
        let contract = Contract { serving: judging.clone(), policy };
        let refusals = support::unsupported(&contract, self.offered);
        let serving = match refusals.first() {
            Some(refusal) if serving.is_ok() => Err(format!("{refusal}{}", more(refusals.len()))),
            _ => serving.map(Box::new),
        };
        Ok(Judged { policy: contract.policy, serving })
    }

    fn contract(&self, path: &Path, bytes: &[u8]) -> Result<ServingConfig, String> {
        let serving = mounted::serving(path, bytes)?;
        if serving.name != self.serving.name {
            let (path, name) = (path.display(), &serving.name);
            return Err(format!("{path}: holds the contract of another model, {name:?}"));
        }
        Ok(serving)
    }
}

// === impl Arrivals ===

impl Arrivals {
    /// What comes into these folders from now on: manifests.
    pub fn of_manifests(paths: &[PathBuf]) -> Self {
        let folders = paths.iter().filter(|path| path.is_dir()).cloned().collect();
        Self::of(folders, |folder| super::files(folder).unwrap_or_default())
    }

    /// What comes into a folder of mounted models from now on.
    pub fn of_mounts(folder: &Path) -> Self {
        Self::of(vec![folder.to_owned()], |folder| mounted::folders(folder).unwrap_or_default())
    }

    fn of(folders: Vec<PathBuf>, list: fn(&Path) -> Vec<PathBuf>) -> Self {
        let mut arrivals = Arrivals { folders, list, known: BTreeSet::new() };
        arrivals.look();
        arrivals
    }

    /// What has come since the last look. May block.
    pub fn look(&mut self) -> Vec<PathBuf> {
        let there = self.folders.iter().flat_map(|folder| (self.list)(folder));
        let new: Vec<PathBuf> = there.filter(|path| !self.known.contains(path)).collect();
        self.known.extend(new.iter().cloned());
        new
    }
}

// === impl Origin ===

impl Origin {
    /// The files that are in force, and the most bytes that are read of each: the first holds the policy.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        match self {
            Origin::Manifest(path) => vec![(path.clone(), manifest::MAX_BYTES as u64)],
            Origin::Folder(folder) => {
                let newest = |part: &str| {
                    let part = folder.join(part);
                    (mounted::newest(&part).unwrap_or(part), files::MAX_FILE_BYTES)
                };
                [files::POLICY_DIR, files::SERVING_DIR].map(newest).into()
            }
        }
    }
}

// === impl Look ===

impl Look {
    fn seen(&self) -> Result<[u8; 32], String> {
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

/// How many sentences there are beside the first.
fn more(sentences: usize) -> String {
    match sentences {
        0 | 1 => String::new(),
        many => format!(" (and {} more)", many - 1),
    }
}
