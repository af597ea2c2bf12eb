//! What a pod mounts for an artifact, and what stands for it outside of one: a Secret's keys are files of a folder, or
//! variables of the environment; a CA bundle is a file; a PersistentVolumeClaim is a folder.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use embark_crds::contract::files;

use super::{Environment, FetchCause, Request};

/// The most bytes of one key of a Secret. A whole Secret has no more than 1 MiB.
const MAX_KEY_BYTES: u64 = 256 * 1024;
/// The most keys of a Secret that are looked at.
const MAX_KEYS: usize = 64;
/// The most bytes of a CA bundle.
const MAX_BUNDLE_BYTES: u64 = 1024 * 1024;
/// What stands for a CA bundle outside of a cluster.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// The credentials of an artifact. It has no Debug: nothing may print it.
pub(super) enum Secret<'a> {
    /// The spec names none.
    None,
    /// The keys of a mounted Secret.
    Mounted(BTreeMap<String, String>),
    /// Outside of a cluster: variables of the environment.
    Environment(&'a Environment),
}

// === impl Secret ===

impl<'a> Secret<'a> {
    /// The credentials that the spec names.
    ///
    /// # Errors
    /// A mounted folder cannot be read, or is not there yet.
    pub(super) async fn of(
        request: &Request<'_>,
        environment: &'a Environment,
    ) -> Result<Self, FetchCause> {
        if !request.artifact.has_secret {
            return Ok(Secret::None);
        }
        if !is_mounted(request.base) {
            return Ok(Secret::Environment(environment));
        }
        let folder = request.base.join(files::SECRETS_DIR).join(files::artifact_dir(request.field));
        let keys = blocking(move || read_keys(&folder)).await;
        keys.map(Secret::Mounted).map_err(|problem| FetchCause::Reference {
            problem: format!("the Secret {problem}"),
            // An optional mount is filled when the Secret comes to be.
            transient: true,
        })
    }

    /// The value of a key, or of the variable that stands for it.
    pub(super) fn get(&self, key: &str, variable: &str) -> Option<&str> {
        match self {
            Secret::None => None,
            Secret::Mounted(keys) => keys.get(key).map(String::as_str).filter(|v| !v.is_empty()),
            Secret::Environment(environment) => environment.get(variable),
        }
    }

    /// The cause that what is needed is not there.
    pub(super) fn lacks(&self, keys: &str, variables: &str) -> FetchCause {
        let (problem, transient) = match self {
            Secret::Environment(_) => {
                let stands = "names a Secret of a cluster; outside of one the environment stands for it: set";
                (format!("{stands} {variables}"), false)
            }
            Secret::None | Secret::Mounted(_) => (format!("the Secret has no {keys}"), true),
        };
        FetchCause::Reference { problem, transient }
    }
}

// === free functions ===

/// The certificates of an artifact's CA bundle, in PEM; `None`: the spec names none.
///
/// # Errors
/// The file cannot be read, or is not there yet.
pub(super) async fn ca_bundle(
    request: &Request<'_>,
    environment: &Environment,
) -> Result<Option<Vec<u8>>, FetchCause> {
    if !request.artifact.has_ca_bundle {
        return Ok(None);
    }
    let mounted = is_mounted(request.base);
    let path = if mounted {
        let folder = request.base.join(files::CA_DIR).join(files::artifact_dir(request.field));
        folder.join(files::CA_FILE)
    } else {
        let named = environment.get(BUNDLE_VARIABLE).ok_or_else(|| FetchCause::Reference {
            problem: format!(
                "names a ConfigMap of a cluster; outside of one the environment stands for it: set {BUNDLE_VARIABLE} to a file of certificates"
            ),
            transient: false,
        })?;
        request.base.join(named)
    };
    let bytes = blocking(move || read_file(&path, MAX_BUNDLE_BYTES)).await;
    bytes.map(Some).map_err(|problem| FetchCause::Reference {
        problem: format!("the CA bundle {problem}"),
        transient: mounted,
    })
}

/// The path of a file on a claim's volume.
///
/// # Errors
/// The path leaves the volume.
pub(super) fn on_volume(base: &Path, claim: &str, path: &str) -> Result<PathBuf, FetchCause> {
    let stays = |part: &str| {
        Path::new(part)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    };
    let volume = base.join(files::VOLUMES_DIR).join(claim);
    let file = volume.join(path.trim_start_matches('/'));
    if stays(claim) && !claim.contains('/') && stays(path.trim_start_matches('/')) {
        return Ok(file);
    }
    Err(FetchCause::File { path: file, problem: "is outside of the volume".to_owned() })
}

/// Whether the folder is a model's of a pod. A manifest's has no contract beside it.
fn is_mounted(base: &Path) -> bool {
    base.join(files::SERVING_DIR).is_dir()
}

fn read_keys(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {}", error.kind());
    let mut keys = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // What a mount keeps the keys of one moment in; the keys are links into it.
        if name.starts_with("..") || !entry.path().is_file() {
            continue;
        }
        if keys.len() == MAX_KEYS {
            return Err(format!("has more than {MAX_KEYS} keys"));
        }
        let bytes = read_file(&entry.path(), MAX_KEY_BYTES);
        let bytes = bytes.map_err(|problem| format!("has the key {name}, which {problem}"))?;
        // Keys of other uses may be anything.
        if let Ok(text) = String::from_utf8(bytes) {
            keys.insert(name, text.trim_end_matches(['\n', '\r']).to_owned());
        }
    }
    Ok(keys)
}

/// A file's bytes. The words that say why not hold none of them.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {}", error.kind());
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(format!("has more than {limit} bytes"));
    }
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
