//! Where a contract stands on a pod's disk. Each model has a folder, and in it a folder for each of the two parts, as
//! mounts of ConfigMaps are folders; a part has a file for each version of the contract that the operator writes.

use std::collections::BTreeMap;

use super::{CachePolicy, Contract, VERSION};

/// The folder with a folder for each model.
pub const MODELS_DIR: &str = "/etc/embark/models";
/// The folder of a model's [`ServingConfig`](super::ServingConfig), within the model's.
pub const SERVING_DIR: &str = "contract";
/// The folder of a model's [`CachePolicy`], within the model's.
pub const POLICY_DIR: &str = "policy";
/// The folder of Secrets, within the model's: a folder for each artifact that has one ([`artifact_dir`]), with a file for
/// each key.
pub const SECRETS_DIR: &str = "secrets";
/// The folder of certificates, within the model's: a folder for each artifact that has a CA bundle, with [`CA_FILE`].
pub const CA_DIR: &str = "ca";
/// A CA bundle, whatever its key in the ConfigMap is.
pub const CA_FILE: &str = "ca.crt";
/// The folder of volumes, within the model's: a folder for each PersistentVolumeClaim that an artifact is on, by its name.
pub const VOLUMES_DIR: &str = "volumes";
/// Where a pod keeps fetched files and the disk cache, each in a folder of its own: [`ARTIFACTS_DIR`] and [`CACHE_DIR`].
pub const DATA_DIR: &str = "/var/lib/embark";
/// The folder that an injected sidecar and the application share, with [`SOCKET_FILE`].
pub const SOCKET_DIR: &str = "/run/embark";
/// The socket in it that gRPC is served at.
pub const SOCKET_FILE: &str = "embark.sock";
/// Fetched files, within the data folder.
pub const ARTIFACTS_DIR: &str = "artifacts";
/// The disk cache, within the data folder.
pub const CACHE_DIR: &str = "cache";

/// The most bytes of one file. A ConfigMap holds no more than 1 MiB.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The versions that this build reads, newest first.
pub const VERSIONS: &[u32] = &[VERSION];

/// The files of a contract by part, and in each part by name: one for each version that the operator writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Those of [`SERVING_DIR`].
    pub serving: BTreeMap<String, String>,
    /// Those of [`POLICY_DIR`].
    pub policy: BTreeMap<String, String>,
}

/// The name of a version's file.
pub fn file_name(version: u32) -> String {
    format!("v{version}.json")
}

/// The folder of an artifact in [`SECRETS_DIR`] and [`CA_DIR`], by the field of the spec that names it: `model`,
/// `tokenizer` or `vocabulary`.
pub fn artifact_dir(field: &str) -> &str {
    match field.rsplit_once('.') {
        // The model's field is spec.model.source: what it is stands before it.
        Some((parent, "source")) => parent.rsplit('.').next().unwrap_or(parent),
        Some((_, name)) => name,
        None => field,
    }
}

// === impl Contract ===

impl Contract {
    /// Every file that this build writes of it: the same bytes for the same contract.
    pub fn files(&self) -> Files {
        let this = |json: String| BTreeMap::from([(file_name(VERSION), json)]);
        Files { serving: this(self.serving_json()), policy: this(self.policy_json()) }
    }

    /// The serving configuration as its file holds it: the same bytes for the same configuration.
    pub fn serving_json(&self) -> String {
        serde_json::to_string(&self.serving).expect("it is plain data with text keys")
    }

    /// The policy as its file holds it: the same bytes for the same policy.
    pub fn policy_json(&self) -> String {
        self.policy.to_json()
    }
}

// === impl CachePolicy ===

impl CachePolicy {
    /// As its file holds it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it is plain data with text keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_artifact_has_a_folder_of_its_own() {
        for (field, folder) in [
            ("spec.model.source", "model"),
            ("spec.input.text.tokenizer", "tokenizer"),
            ("spec.input.categorical.vocabulary", "vocabulary"),
        ] {
            assert_eq!(artifact_dir(field), folder);
        }
    }
}
