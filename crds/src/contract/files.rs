//! Where a contract stands on a pod's disk. Each model has a folder, and in it a folder for each of the two parts, as
//! mounts of ConfigMaps are folders; a part has a file for each version of the contract that the operator writes.

use super::{CachePolicy, Contract, VERSION};

/// The folder with a folder for each model.
pub const MODELS_DIR: &str = "/etc/embark/models";
/// The folder of a model's [`ServingConfig`](super::ServingConfig), within the model's.
pub const SERVING_DIR: &str = "contract";
/// The folder of a model's [`CachePolicy`], within the model's.
pub const POLICY_DIR: &str = "policy";
/// Where a pod keeps fetched files and the disk cache, each in a folder of its own: [`ARTIFACTS_DIR`] and [`CACHE_DIR`].
pub const DATA_DIR: &str = "/var/lib/embark";
/// Fetched files, within the data folder.
pub const ARTIFACTS_DIR: &str = "artifacts";
/// The disk cache, within the data folder.
pub const CACHE_DIR: &str = "cache";

/// The most bytes of one file. A ConfigMap holds no more than 1 MiB.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The versions that this build reads, newest first.
pub const VERSIONS: &[u32] = &[VERSION];

/// The name of a version's file.
pub fn file_name(version: u32) -> String {
    format!("v{version}.json")
}

// === impl Contract ===

impl Contract {
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
