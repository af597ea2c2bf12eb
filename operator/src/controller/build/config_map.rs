//! What the sidecar reads: the contract, which rolls the pods, and the policy, which does not.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{ValidatedModel, metadata, with};
use crate::names::{POOL_CONTRACT, ROLE};

pub(super) fn build(model: &ValidatedModel) -> Vec<ConfigMap> {
    let (names, files) = (model.names(), &model.files);
    let holding = |name: String, files: &BTreeMap<String, String>| ConfigMap {
        metadata: metadata(model, name),
        data: Some(files.clone()),
        ..ConfigMap::default()
    };
    // Immutable, and named by its hash: pods of an older revision keep theirs, and a roll back finds it.
    let mut pool = holding(names.pool_contract(&model.serving_hash), &files.serving);
    pool.immutable = Some(true);
    pool.metadata.labels = Some(with(names.labels(), ROLE, POOL_CONTRACT));
    let stable = holding(names.contract(), &model.injected);
    let policy = holding(names.policy(), &files.policy);
    vec![pool, stable, policy]
}
