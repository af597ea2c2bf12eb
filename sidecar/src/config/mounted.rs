//! The models of a pod: contracts that the operator wrote, in folders that ConfigMaps are mounted at.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use embark_crds::contract::{Contract, files};
use serde::de::DeserializeOwned;

use super::ModelConfig;
use crate::model::support;

/// Reads the model of every folder in `folder`. What this sidecar does not serve yet is left to be said at the model:
/// the pod stays, so that it can be asked why.
///
/// # Errors
/// Everything that cannot be read, a line each.
pub(super) fn read(folder: &Path) -> Result<Vec<ModelConfig>, Vec<String>> {
    let folders = folders(folder).map_err(|error| vec![unreadable(folder, &error)])?;
    if folders.is_empty() {
        return Err(vec![format!("{}: has no folder of a model", folder.display())]);
    }
    let (mut models, mut errors) = (Vec::new(), Vec::new());
    for folder in folders {
        match model(&folder) {
            Ok(model) => models.push(model),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(models) } else { Err(errors) }
}

// === free functions ===

/// The folders of a folder by name, without those that mounts hide in it.
fn folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
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

fn model(folder: &Path) -> Result<ModelConfig, String> {
    let serving = newest(&folder.join(files::SERVING_DIR))?;
    let policy = newest(&folder.join(files::POLICY_DIR))?;
    let contract = Contract { serving, policy };
    let name = &contract.serving.name;
    if folder.file_name().is_none_or(|folder| folder != name.as_str()) {
        return Err(format!("{}: holds the contract of another model, {name:?}", folder.display()));
    }
    let unsupported = support::unsupported(&contract);
    Ok(ModelConfig { contract, base: folder.to_owned(), unsupported })
}

/// The newest version of a part that this sidecar reads.
fn newest<T: DeserializeOwned>(folder: &Path) -> Result<T, String> {
    let paths = files::VERSIONS.iter().map(|version| folder.join(files::file_name(*version)));
    let Some(path) = paths.into_iter().find(|path| path.exists()) else {
        let versions: Vec<String> = files::VERSIONS.iter().map(|v| files::file_name(*v)).collect();
        return Err(format!("{}: has none of {}", folder.display(), versions.join(", ")));
    };
    let mut bytes = Vec::new();
    fs::File::open(&path)
        .and_then(|file| file.take(files::MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&path, &error))?;
    if bytes.len() as u64 > files::MAX_FILE_BYTES {
        return Err(format!("{}: has more than {} bytes", path.display(), files::MAX_FILE_BYTES));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("{}: is no contract: {error}", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot be read: {error}", path.display())
}
