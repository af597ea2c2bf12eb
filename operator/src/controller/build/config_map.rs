//! What the sidecar reads: the contract, which rolls the pods, and the policy, which does not.

use embark_crds::contract::{VERSION, files::file_name};
use k8s_openapi::api::core::v1::ConfigMap;

use super::{ValidatedModel, metadata, with};
use crate::controller::names::{POOL_CONTRACT, ROLE};

pub(super) fn build(model: &ValidatedModel) -> Vec<ConfigMap> {
    let (names, contract) = (model.names(), &model.contract);
    let holding = |name: String, json: String| ConfigMap {
        metadata: metadata(model, name),
        data: Some([(file_name(VERSION), json)].into()),
        ..ConfigMap::default()
    };
    // Immutable, and named by its hash: pods of an older revision keep theirs, and a roll back finds it.
    let mut pool = holding(names.pool_contract(&model.serving_hash), contract.serving_json());
    pool.immutable = Some(true);
    pool.metadata.labels = Some(with(names.labels(), ROLE, POOL_CONTRACT));
    let stable = holding(names.contract(), contract.serving_json());
    let policy = holding(names.policy(), contract.policy_json());
    vec![pool, stable, policy]
}
