//! Files that a model is made of: where they are, and what they must be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A file that is pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where it is.
    pub location: Location,
    /// What it must be.
    pub sha256: Sha256,
    /// Whether credentials are mounted for it.
    pub has_secret: bool,
    /// Whether a CA bundle is mounted for it.
    pub has_ca_bundle: bool,
}

/// Where an artifact is, parsed from its URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "scheme")]
pub enum Location {
    /// `builtin://model/file`: compiled into the sidecar.
    Builtin {
        /// `model/file`.
        path: String,
    },
    /// `file://path`: absolute, or relative to the manifest.
    File {
        /// The path as written.
        path: String,
    },
    /// `http://` or `https://`.
    Http {
        /// The whole URL.
        url: String,
    },
    /// `s3://`, `gs://` or `az://`.
    ObjectStore {
        /// The whole URL.
        url: String,
    },
    /// `oci://repository@sha256:…`, and the layer's title.
    Oci {
        /// `repository@sha256:…`.
        reference: String,
        /// The title of the layer.
        title: String,
    },
    /// `hf://org/repo@revision/file`.
    Hf {
        /// `org/repo`.
        repository: String,
        /// A pinned revision.
        revision: String,
        /// The file's path in the repository.
        file: String,
    },
    /// `pvc://claim/path`.
    Pvc {
        /// The PersistentVolumeClaim's name.
        claim: String,
        /// The path in the volume.
        path: String,
    },
}

/// A SHA-256 digest; as text 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

/// The text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hex digits")]
pub struct NotSha256;

// === impl Location ===

impl Location {
    /// The URI's scheme as a user writes it, for messages.
    pub fn scheme(&self) -> &str {
        match self {
            Location::Builtin { .. } => "builtin",
            Location::File { .. } => "file",
            Location::Http { url } | Location::ObjectStore { url } => {
                url.split_once("://").map_or("", |(scheme, _)| scheme)
            }
            Location::Oci { .. } => "oci",
            Location::Hf { .. } => "hf",
            Location::Pvc { .. } => "pvc",
        }
    }
}

// === impl Sha256 ===

impl Sha256 {
    /// Reads 64 hex digits of either case.
    ///
    /// # Errors
    /// [`NotSha256`] for any other text.
    pub fn parse(text: &str) -> Result<Self, NotSha256> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotSha256)?;
        Ok(Sha256(*hash.as_bytes()))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NotSha256;
    fn try_from(text: String) -> Result<Self, NotSha256> {
        Sha256::parse(&text)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.to_string()
    }
}
