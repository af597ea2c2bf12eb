//! What is mounted into the container that serves: what it reads, and the two folders that it may write.

use embark_crds::contract::{
    Artifact, CacheMode, Location,
    files::{ARTIFACTS_DIR, CACHE_DIR, DATA_DIR, MODELS_DIR, POLICY_DIR, SERVING_DIR},
};
use k8s_openapi::{
    api::core::v1::{ConfigMapVolumeSource, EmptyDirVolumeSource, Volume, VolumeMount},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{ValidatedModel, mounts};

/// One MiB, in bytes.
const MIB: u64 = 1024 * 1024;
/// The limit of a folder that nothing should be written to.
const LEAST_BYTES: u64 = 16 * MIB;

/// The volumes of a pod.
pub(super) fn volumes(model: &ValidatedModel) -> Vec<Volume> {
    let names = model.names();
    let config_map = |volume: &str, name: String| Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let scratch = |volume: &str, bytes: u64| Volume {
        name: volume.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(quantity(bytes)),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let own = vec![
        config_map(SERVING_DIR, names.pool_contract(&model.serving_hash)),
        config_map(POLICY_DIR, names.policy()),
        scratch(ARTIFACTS_DIR, artifacts_bytes(model)),
        scratch(CACHE_DIR, cache_bytes(model)),
    ];
    let users = [mounts::of_artifacts(model, ""), mounts::of_endpoint(model).0];
    own.into_iter().chain(users.into_iter().flat_map(|users| users.volumes)).collect()
}

/// Where the container has them. Folders, never a subPath: that would not follow a change.
pub(super) fn mounts(model: &ValidatedModel) -> Vec<VolumeMount> {
    let mount = |volume: &str, path: String, read_only: Option<bool>| VolumeMount {
        name: volume.to_owned(),
        mount_path: path,
        read_only,
        ..VolumeMount::default()
    };
    let read = |part: &str| mount(part, format!("{MODELS_DIR}/{}/{part}", model.name), Some(true));
    let written = |part: &str| mount(part, format!("{DATA_DIR}/{part}"), None);
    let own = vec![read(SERVING_DIR), read(POLICY_DIR), written(ARTIFACTS_DIR), written(CACHE_DIR)];
    let users = [mounts::of_artifacts(model, ""), mounts::of_endpoint(model).0];
    own.into_iter().chain(users.into_iter().flat_map(|users| users.mounts)).collect()
}

/// The disk that a pod may take, in bytes: the scheduler sets it aside.
pub(super) fn ephemeral_bytes(model: &ValidatedModel) -> u64 {
    artifacts_bytes(model) + cache_bytes(model)
}

/// A number of bytes as Kubernetes writes it, so that what is applied reads back as it was.
pub(super) fn quantity(bytes: u64) -> Quantity {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let whole = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    Quantity(match whole {
        Some((unit, suffix)) => format!("{}{suffix}", bytes / unit),
        None => bytes.to_string(),
    })
}

/// Each of a model's two files, at most, and a new one beside it while it comes in.
fn artifacts_bytes(model: &ValidatedModel) -> u64 {
    let serving = &model.contract.serving;
    let is_here = |artifact: &Artifact| {
        matches!(artifact.location, Location::Builtin { .. } | Location::Pvc { .. })
    };
    if serving.artifacts().all(|(_, artifact)| is_here(artifact)) {
        return LEAST_BYTES;
    }
    round_up(serving.artifact_size_limit.saturating_mul(2))
}

/// The limit of the disk cache with room above it: a store that grows past its volume ends the pod.
fn cache_bytes(model: &ValidatedModel) -> u64 {
    let cache = &model.contract.serving.cache;
    match cache.mode {
        CacheMode::MemoryAndDisk => {
            round_up((cache.disk_bytes / 4).saturating_mul(5).saturating_add(256 * MIB))
        }
        CacheMode::Disabled | CacheMode::Memory => LEAST_BYTES,
    }
}

fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(MIB).saturating_mul(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_the_largest_whole_unit() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1024, "1Ki"),
            (1536 * MIB, "1536Mi"),
            (2048 * MIB, "2Gi"),
            (MIB + 1, "1048577"),
        ] {
            assert_eq!(quantity(bytes).0, text);
        }
    }
}
