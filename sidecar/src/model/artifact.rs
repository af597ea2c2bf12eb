//! Files that are pinned by their digest: models, tokenizers.
//!
//! *Guarantee*: the bytes that [`ArtifactStore::fetch`] gives are the bytes that were hashed, so nothing can change
//! between the check and the use, and nothing unverified is ever parsed. A file that was fetched over a network is kept
//! in the store's folder under its digest and never fetched again; it is hashed again whenever it is read. Without a
//! folder to write to the store still serves.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use embark_crds::contract::{Artifact, Location, Sha256};
use parking_lot::Mutex;
use sha2::Digest;
use tracing::warn;

mod body;
mod builtin;
mod environment;
mod file;
mod hf;
mod http;
mod mounts;
mod objects;
mod oci;
mod source;
mod temporary;
mod transfer;

pub use body::FetchSettings;
pub use environment::Environment;
pub use http::install_tls_provider;
use source::Source;
use temporary::Temporary;
use transfer::Received;

/// Fetches artifacts and keeps those that came over a network.
#[derive(Debug)]
pub struct ArtifactStore {
    /// `None`: nothing can be written, so nothing is kept.
    folder: Option<PathBuf>,
    settings: FetchSettings,
    clients: http::Clients,
    environment: Environment,
    /// One lock for each digest that is being fetched, so that two models that want it fetch it once.
    flights: Mutex<HashMap<Sha256, Arc<tokio::sync::Mutex<()>>>>,
    next_temporary: AtomicU64,
}

/// What is wanted.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The file.
    pub artifact: &'a Artifact,
    /// The field of the manifest that names it, such as `spec.model.source`.
    pub field: &'static str,
    /// The most bytes that it may have.
    pub size_limit: u64,
    /// The folder that a relative `file://` path starts from.
    pub base: &'a Path,
    /// Told of every step; it must not block.
    pub progress: &'a (dyn Fn(Progress) + Send + Sync),
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes are coming in.
    Fetching {
        /// Bytes so far.
        bytes: u64,
        /// Bytes of the whole file, where the source says so.
        total: Option<u64>,
    },
    /// The bytes are here and are being hashed.
    Verifying,
}

/// A file that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub struct FetchError {
    /// The field of the manifest that it is about.
    pub field: String,
    /// Why.
    pub cause: FetchCause,
}

/// Why a file cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchCause {
    /// What the spec refers to, credentials or certificates, is not there or not what it should be.
    #[error("{problem}")]
    Reference {
        /// What is the matter; no secret is in it.
        problem: String,
        /// Whether it may be otherwise later.
        transient: bool,
    },
    /// No file of this name is compiled in.
    #[error("builtin://{path} does not exist; built in: {}", builtin::names())]
    NoBuiltin {
        /// The name.
        path: String,
    },
    /// The file cannot be read.
    #[error("file {path:?} {problem}")]
    File {
        /// The path.
        path: PathBuf,
        /// What is the matter.
        problem: String,
    },
    /// The file is larger than it may be.
    #[error("the file is larger than {limit} bytes, which is all that spec.model.sizeLimit allows")]
    TooLarge {
        /// The most bytes.
        limit: u64,
    },
    /// The file is another one.
    #[error("is {expected}, but the file's sha256 is {actual}")]
    Digest {
        /// As the manifest says.
        expected: Sha256,
        /// As the file is.
        actual: Sha256,
    },
    /// The source did not give the file.
    #[error("{address} {problem}")]
    Source {
        /// Where it is, without credentials and query.
        address: String,
        /// What happened, after how many tries.
        problem: String,
        /// Whether it may be otherwise later.
        transient: bool,
    },
}

// === impl ArtifactStore ===

impl ArtifactStore {
    /// A store in `folder`, which is made if it is not there; what earlier runs left unfinished is deleted. A folder that
    /// cannot be written to is only warned of.
    pub fn new(folder: &Path) -> Self {
        Self::with(folder, FetchSettings::default(), Environment::of_process())
    }

    /// A store whose fetches have other bounds and another environment.
    pub fn with(folder: &Path, settings: FetchSettings, environment: Environment) -> Self {
        let prepared = prepare(folder);
        if let Err(error) = &prepared {
            warn!(folder = %folder.display(), %error, "fetched models cannot be kept; they are fetched at each start");
        }
        ArtifactStore {
            folder: prepared.is_ok().then(|| folder.to_owned()),
            settings,
            clients: http::Clients::new(settings),
            environment,
            flights: Mutex::default(),
            next_temporary: AtomicU64::new(0),
        }
    }

    /// The file's bytes, verified.
    ///
    /// # Errors
    /// The source is not supported, cannot be reached, is too large, or is not the file that the digest names.
    pub async fn fetch(&self, request: &Request<'_>) -> Result<Bytes, FetchError> {
        // Before the source answers, which may take its time.
        (request.progress)(Progress::Fetching { bytes: 0, total: None });
        let bytes = match &request.artifact.location {
            Location::Builtin { path } => builtin::read(path),
            Location::File { path } => {
                file::read(request.base.join(path), request.size_limit).await
            }
            Location::Pvc { claim, path } => match mounts::on_volume(request.base, claim, path) {
                Ok(path) => file::read(path, request.size_limit).await,
                Err(cause) => Err(cause),
            },
            Location::Http { .. }
            | Location::ObjectStore { .. }
            | Location::Oci { .. }
            | Location::Hf { .. } => return self.fetch_once(request).await,
        };
        let bytes = bytes.map_err(|cause| request.error("uri", cause))?;
        if bytes.len() as u64 > request.size_limit {
            return Err(request.too_large());
        }
        (request.progress)(Progress::Verifying);
        let actual = digest_of(bytes.clone()).await;
        request.verified(actual).map(|()| bytes)
    }

    /// The file, kept or fetched; who else wants it meanwhile waits for it.
    async fn fetch_once(&self, request: &Request<'_>) -> Result<Bytes, FetchError> {
        let digest = request.artifact.sha256;
        let flight = self.flights.lock().entry(digest).or_default().clone();
        let held = flight.lock().await;
        let result = match self.read_kept(request).await {
            Some(result) => result,
            None => self.download(request).await,
        };
        drop(held);
        let mut flights = self.flights.lock();
        // This one and the map's: nobody else waits.
        if Arc::strong_count(&flight) <= 2 {
            flights.remove(&digest);
        }
        result
    }

    /// The kept file; `None` when it has to be fetched. A damaged one is deleted.
    async fn read_kept(&self, request: &Request<'_>) -> Option<Result<Bytes, FetchError>> {
        let path = self.kept_path(request.artifact.sha256)?;
        let bytes = match file::read(path.clone(), request.size_limit).await {
            Ok(bytes) => bytes,
            Err(FetchCause::TooLarge { .. }) => return Some(Err(request.too_large())),
            Err(_) => return None,
        };
        (request.progress)(Progress::Verifying);
        if digest_of(bytes.clone()).await == request.artifact.sha256 {
            return Some(Ok(bytes));
        }
        warn!(file = %path.display(), "a kept model file is damaged; it is fetched again");
        if let Err(error) = tokio::fs::remove_file(&path).await {
            warn!(file = %path.display(), %error, "a damaged model file cannot be deleted");
        }
        None
    }

    async fn download(&self, request: &Request<'_>) -> Result<Bytes, FetchError> {
        let source = Source::of(request, &self.clients, &self.environment).await?;
        let received = self.receive(&source, request).await?;
        let received = if received.in_one_piece || received.digest == request.artifact.sha256 {
            received
        } else {
            // Its pieces may be of two files. Gone before the next comes, which takes as much memory.
            drop(received);
            warn!(
                from = source.address(),
                "a file that came in pieces is another; it is fetched anew"
            );
            self.receive(&source, request).await?
        };
        let Received { bytes, digest, temporary, .. } = received;
        (request.progress)(Progress::Verifying);
        request.verified(digest)?;
        if let (Some(temporary), Some(path)) = (temporary, self.kept_path(digest))
            && let Err(error) = temporary.keep_as(&path).await
        {
            warn!(file = %path.display(), %error, "a fetched model cannot be kept");
        }
        Ok(bytes)
    }

    async fn receive(
        &self,
        source: &Source,
        request: &Request<'_>,
    ) -> Result<Received, FetchError> {
        let received = transfer::receive(source, &self.settings, request, || self.temporary());
        received.await.map_err(|cause| request.error("uri", cause))
    }

    fn kept_path(&self, digest: Sha256) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("sha256").join(digest.to_string()))
    }

    /// A new file to write to; `None`: nothing can be kept.
    async fn temporary(&self) -> Option<Temporary> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let path = self.folder.as_ref()?.join("unfinished").join(name);
        match Temporary::create(&path).await {
            Ok(temporary) => Some(temporary),
            Err(error) => {
                warn!(file = %path.display(), %error, "a fetched model cannot be kept");
                None
            }
        }
    }
}

// === impl Request ===

impl Request<'_> {
    fn error(&self, child: &str, cause: FetchCause) -> FetchError {
        FetchError { field: format!("{}.{child}", self.field), cause }
    }

    fn too_large(&self) -> FetchError {
        self.error("uri", FetchCause::TooLarge { limit: self.size_limit })
    }

    fn verified(&self, actual: Sha256) -> Result<(), FetchError> {
        let expected = self.artifact.sha256;
        if actual == expected {
            return Ok(());
        }
        Err(self.error("sha256", FetchCause::Digest { expected, actual }))
    }
}

// === impl FetchError ===

impl FetchError {
    /// Whether another try later may succeed without a change of the manifest.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.cause,
            FetchCause::Source { transient: true, .. }
                | FetchCause::Reference { transient: true, .. }
        )
    }
}

// === free functions ===

/// Why a file cannot be had that is said to be compiled in and is not; `None`: it is, or is elsewhere.
pub fn missing_builtin(location: &Location) -> Option<FetchCause> {
    match location {
        Location::Builtin { path } if !builtin::exists(path) => {
            Some(FetchCause::NoBuiltin { path: path.clone() })
        }
        _ => None,
    }
}

/// Makes the folder's parts, empties the one of unfinished files and proves that it can be written to.
fn prepare(folder: &Path) -> io::Result<()> {
    let unfinished = folder.join("unfinished");
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder.join("sha256"))?;
    std::fs::create_dir_all(&unfinished)?;
    let probe = unfinished.join("probe");
    std::fs::write(&probe, b"probe")?;
    std::fs::remove_file(&probe)
}

/// Hashes away from the threads that serve requests: a model takes tenths of a second.
async fn digest_of(bytes: Bytes) -> Sha256 {
    let hash = move || Sha256(sha2::Sha256::digest(&bytes).into());
    match tokio::task::spawn_blocking(hash).await {
        Ok(digest) => digest,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
