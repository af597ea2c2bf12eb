//! Why the cluster could not be brought to what was built.

use crate::children::Kept;

/// Why a step failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("failed to apply {kind} {name}")]
    Apply { kind: String, name: String, source: kube::Error },
    #[error("failed to look for {kind} {name}")]
    Look { kind: String, name: String, source: kube::Error },
    #[error(
        "{kind} {name} is there already and belongs to {owner}: delete it, or name the model otherwise"
    )]
    Taken { kind: String, name: String, owner: String },
    #[error("failed to delete {kind} {name}, which the model has no more use for")]
    Prune { kind: String, name: String, source: kube::Error },
}

// === impl ApplyError ===

impl ApplyError {
    /// One word of a closed list.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            ApplyError::Apply { .. } => "ApplyFailed",
            ApplyError::Look { .. } => "LookupFailed",
            ApplyError::Taken { .. } => "NameTaken",
            ApplyError::Prune { .. } => "PruneFailed",
        }
    }
}

// === free functions ===

/// What a child's kind is called.
pub(super) fn kind<K: Kept>() -> String {
    K::kind(&()).into_owned()
}
