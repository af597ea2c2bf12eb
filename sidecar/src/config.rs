//! What a server is started with: arguments and manifests, read and resolved before anything else is done.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use embark_crds::{
    contract::Contract,
    manifest::{self, Manifest},
    resolve::{Target, resolve},
};

use crate::{
    args,
    cli::Failure,
    memory,
    model::{
        refusal::Refusal,
        support::{self, Offered},
    },
};

pub mod file;
mod mounted;
pub mod watch;

use watch::Arrivals;

/// The endings of files that are taken from a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A server's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where probes, metrics and status are served.
    pub admin_listen: SocketAddr,
    /// Where fetched files and the disk cache are kept.
    pub data_dir: PathBuf,
    /// How old a connection may become.
    pub max_connection_age: Duration,
    /// How long requests are still accepted after SIGTERM.
    pub drain_wait: Duration,
    /// What the process calls itself: in a cluster the pod's name.
    pub instance: String,
    /// What the process proves itself with, and what it asks of callers.
    pub endpoint: args::Endpoint,
    /// What is served.
    pub models: Vec<ModelConfig>,
    /// What is to be served as soon as it can be read.
    pub unread: Vec<Unread>,
    /// What comes into the folders that they were found in.
    pub arrivals: Arrivals,
    /// Bytes that the process may use.
    pub memory_limit: u64,
    /// Whether the process ends when no model can be served: somebody waits at a terminal then. A pod stays and says why.
    pub ends_without_models: bool,
}

/// A model that is to be served.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// What it is.
    pub contract: Contract,
    /// The folder that relative `file://` paths start from.
    pub base: PathBuf,
    /// Where it is written down.
    pub origin: Origin,
    /// What of it this process cannot give: then it is not loaded.
    pub unsupported: Vec<Refusal>,
}

/// A model that is mounted, and cannot be read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// What it is to be called: its folder's name.
    pub name: String,
    /// The model's own folder.
    pub folder: PathBuf,
    /// Why, with the path.
    pub sentence: String,
    /// Whether a part of it is simply not there yet.
    pub is_awaited: bool,
}

/// Where a model is written down, to be looked at again while it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of manifests.
    Manifest(PathBuf),
    /// The model's own folder, with a mounted folder for each part of the contract, and in it a file for each version.
    Folder(PathBuf),
}

/// A manifest and the file that it stands in.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// One EmbeddingModel of it.
    pub manifest: Manifest,
}

// === impl Config ===

impl Config {
    /// Reads the manifests, or the folder of models, that the arguments name.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, a line each.
    pub fn read(arguments: &args::Serve) -> Result<Self, Failure> {
        let offered = offered(&arguments.endpoint);
        // Before they are read: what comes meanwhile is told of rather than missed.
        let (arrivals, read) = match &arguments.models_dir {
            Some(folder) => (Arrivals::of_mounts(folder), mounted::read(folder, offered)),
            None => {
                let arrivals = Arrivals::of_manifests(&arguments.manifest);
                let models = of_manifests(&arguments.manifest, offered);
                (arrivals, models.map(|models| (models, Vec::new())))
            }
        };
        let (models, unread) = read.map_err(|errors| Failure::Usage(errors.join("\n")))?;
        Ok(Config {
            listen: arguments.listen,
            admin_listen: arguments.admin_listen,
            endpoint: arguments.endpoint.clone(),
            data_dir: arguments.data_dir.clone(),
            max_connection_age: arguments.max_connection_age,
            drain_wait: arguments.drain_wait,
            instance: std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned()),
            arrivals,
            memory_limit: arguments.memory_limit.unwrap_or_else(memory::limit),
            models,
            unread,
            ends_without_models: arguments.models_dir.is_none(),
        })
    }
}

// === free functions ===

/// Every EmbeddingModel of files and folders; and what cannot be read or is no EmbeddingModel, a line each. One bad file
/// keeps nobody from being told of the others.
pub fn read_all(paths: &[PathBuf]) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        for file in files(path).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        }) {
            match read(&file) {
                Ok(manifests) => found.extend(manifests),
                Err(wrong) => errors.extend(wrong),
            }
        }
    }
    if errors.is_empty() && found.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        errors.push(format!("{}: no EmbeddingModel in it", paths.join(", ")));
    }
    (found, errors)
}

/// What a server with these arguments has for models that ask for it.
pub fn offered(arguments: &args::Endpoint) -> Offered {
    Offered {
        tls: arguments.tls_cert.is_some(),
        client_ca: arguments.tls_client_ca.is_some(),
        token: arguments.token_file.is_some(),
    }
}

/// The models of manifests.
///
/// # Errors
/// Everything that is wrong with any of them, a line each.
pub fn of_manifests(paths: &[PathBuf], offered: Offered) -> Result<Vec<ModelConfig>, Vec<String>> {
    let (found, mut errors) = read_all(paths);
    errors.extend(duplicates(&found, Target::Local));
    let mut models = Vec::new();
    for Found { path, manifest } in found {
        match model(&path, &manifest, offered) {
            Ok(model) => models.push(model),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(models) } else { Err(errors) }
}

fn model(path: &Path, manifest: &Manifest, offered: Offered) -> Result<ModelConfig, Vec<String>> {
    let name = &manifest.metadata.name;
    let line = |error: &dyn std::fmt::Display| format!("{}: {name}: {error}", path.display());
    let contract = resolve(name, &manifest.spec, Target::Local)
        .map_err(|errors| errors.iter().map(|error| line(error)).collect::<Vec<_>>())?;
    let unsupported = support::unsupported(&contract, offered);
    if !unsupported.is_empty() {
        return Err(unsupported.iter().map(|refusal| line(refusal)).collect());
    }
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok(ModelConfig { contract, base, origin: Origin::Manifest(path.to_owned()), unsupported })
}

/// Names that stand more than once, a line each. In a cluster a name may stand once in each namespace.
pub fn duplicates(found: &[Found], target: Target) -> Vec<String> {
    let mut files: BTreeMap<(&str, Option<&str>), Vec<String>> = BTreeMap::new();
    for Found { path, manifest } in found {
        let metadata = &manifest.metadata;
        let namespace = match target {
            Target::Local => None,
            Target::Cluster => metadata.namespace.as_deref(),
        };
        files.entry((&metadata.name, namespace)).or_default().push(path.display().to_string());
    }
    files.retain(|_, paths| paths.len() > 1);
    let line = |((name, _), paths): ((&str, Option<&str>), Vec<String>)| {
        format!("metadata.name: {name:?} is given more than once: {}", paths.join(", "))
    };
    files.into_iter().map(line).collect()
}

/// The file itself, or the manifests of a folder by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| file::unreadable(path, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ENDINGS.contains(&ending) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads no more of a file than a manifest may have.
fn read(path: &Path) -> Result<Vec<Found>, Vec<String>> {
    let bytes = file::read(path, manifest::MAX_BYTES as u64).map_err(|error| vec![error])?;
    parse(path, bytes)
}

/// The manifests of a file's bytes.
fn parse(path: &Path, bytes: Vec<u8>) -> Result<Vec<Found>, Vec<String>> {
    let line = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = String::from_utf8(bytes).map_err(|_| vec![line(&"is not UTF-8 text")])?;
    let manifests = manifest::read(&text)
        .map_err(|errors| errors.iter().map(|error| line(error)).collect::<Vec<_>>())?;
    let found = |manifest| Found { path: path.to_owned(), manifest };
    Ok(manifests.into_iter().map(found).collect())
}
