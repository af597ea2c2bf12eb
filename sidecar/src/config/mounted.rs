//! The models of a pod: contracts that the operator wrote, in folders that ConfigMaps are mounted at.

use std::{
    fs,
    path::{Path, PathBuf},
};

use embark_crds::contract::{CachePolicy, Contract, ServingConfig, files};
use serde::de::DeserializeOwned;

use super::{ModelConfig, Origin, Unread, file, file::unreadable};
use crate::{
    model::{
        refusal::{contained, quote},
        support::{self, Offered},
    },
    policy,
};

/// Reads the model of every folder in `folder`. A contract that is not there or is none is left to be said at the model,
/// and so is what this process cannot give: the pod stays, so that it can be asked why, and so that what else runs in it
/// does not end with it.
///
/// # Errors
/// The folder cannot be read, or has no folder of a model: then nothing is mounted at all.
pub(super) fn read(
    folder: &Path,
    offered: Offered,
) -> Result<(Vec<ModelConfig>, Vec<Unread>), Vec<String>> {
    let folders = folders(folder).map_err(|error| vec![unreadable(folder, &error)])?;
    if folders.is_empty() {
        return Err(vec![format!("{}: has no folder of a model", folder.display())]);
    }
    let (mut models, mut unread) = (Vec::new(), Vec::new());
    for folder in folders {
        match model(&folder, offered) {
            Ok(model) => models.push(model),
            Err(why) => unread.push(why),
        }
    }
    Ok((models, unread))
}

// === free functions ===

/// The folders of a folder by name, without those that mounts hide in it.
pub(super) fn folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().is_dir() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// The model of a folder; or why there is none yet.
pub(super) fn model(folder: &Path, offered: Offered) -> Result<ModelConfig, Unread> {
    let read = contained(|| parts(folder, offered));
    let sentence = match read {
        Ok(Ok(model)) => return Ok(model),
        Ok(Err(sentence)) => sentence,
        Err(panic) => format!("{}: cannot be read: {panic}", folder.display()),
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lacks = |part: &str| newest(&folder.join(part)).is_none();
    let is_awaited = lacks(files::SERVING_DIR) || lacks(files::POLICY_DIR);
    Err(Unread { name, folder: folder.to_owned(), sentence, is_awaited })
}

fn parts(folder: &Path, offered: Offered) -> Result<ModelConfig, String> {
    let (path, bytes) = read_newest(&folder.join(files::SERVING_DIR))?;
    let serving = serving(&path, &bytes)?;
    let policies = folder.join(files::POLICY_DIR);
    let (path, bytes) = read_newest(&policies)?;
    let policy = self::policy(&path, &bytes, &serving)?;
    let contract = Contract { serving, policy };
    let name = &contract.serving.name;
    if folder.file_name().is_none_or(|folder| folder != name.as_str()) {
        return Err(format!("{}: holds the contract of another model, {name:?}", folder.display()));
    }
    let unsupported = support::unsupported(&contract, offered);
    let origin = Origin::Folder(folder.to_owned());
    Ok(ModelConfig { contract, base: folder.to_owned(), origin, unsupported })
}

/// What is to be served, as a file holds it.
///
/// # Errors
/// Why it holds nothing, a sentence with its path.
pub(super) fn serving(path: &Path, bytes: &[u8]) -> Result<ServingConfig, String> {
    parse(path, bytes)
}

/// The policy that a file holds for a model.
///
/// # Errors
/// Why it holds none, a sentence with its path.
pub(super) fn policy(
    path: &Path,
    bytes: &[u8],
    serving: &ServingConfig,
) -> Result<CachePolicy, String> {
    let policy: CachePolicy = parse(path, bytes)?;
    if !files::VERSIONS.contains(&policy.version) {
        let (path, version, read) = (path.display(), policy.version, files::VERSIONS);
        return Err(format!("{path}: version: {version} is not one that is read: {read:?}"));
    }
    policy::fits(&policy, serving.output.dimensions)
        .map_err(|refusal| format!("{}: {refusal}", path.display()))?;
    Ok(policy)
}

/// The file of the newest version of a part that this sidecar reads; `None`: there is none.
pub(super) fn newest(folder: &Path) -> Option<PathBuf> {
    let paths = files::VERSIONS.iter().map(|version| folder.join(files::file_name(*version)));
    paths.into_iter().find(|path| path.exists())
}

/// The sentence for a folder without a part.
pub(super) fn nothing_to_read(folder: &Path) -> String {
    let versions: Vec<String> = files::VERSIONS.iter().map(|v| files::file_name(*v)).collect();
    format!("{}: has none of {}", folder.display(), versions.join(", "))
}

fn read_newest(folder: &Path) -> Result<(PathBuf, Vec<u8>), String> {
    let path = newest(folder).ok_or_else(|| nothing_to_read(folder))?;
    let bytes = file::read(&path, files::MAX_FILE_BYTES)?;
    Ok((path, bytes))
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("{}: is no contract: {}", path.display(), quote(error)))
}
