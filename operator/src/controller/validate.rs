//! Whether a model can be built. The only place where a user is told no.

use std::collections::BTreeMap;

use embark_crds::{
    contract::{Contract, ServingConfig, files::Files},
    digest::{self, SpaceId},
    resolve::{FieldError, Target, resolve},
    v1alpha1::{EmbeddingModel, EmbeddingModelSpec},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};

use crate::names::Names;

/// A model that can be built.
///
/// # Guarantees
/// The contract is that of the spec, and the hashes are those of its parts.
#[derive(Clone, Debug)]
pub(crate) struct ValidatedModel {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// What its children are owned by.
    pub(crate) owner: OwnerReference,
    pub(crate) spec: EmbeddingModelSpec,
    pub(crate) contract: Contract,
    /// What the pool's pods read, in each version.
    pub(crate) files: Files,
    /// What injected sidecars read in place of [`Files::serving`].
    pub(crate) injected: BTreeMap<String, String>,
    /// The hash of the files of the part that rolls the pods.
    pub(crate) serving_hash: String,
    /// The hash of the cache policy.
    pub(crate) policy_hash: String,
    pub(crate) space: SpaceId,
}

/// Checks a model.
///
/// # Errors
/// Everything that is wrong with it, each at its field.
pub(super) fn validate(model: &EmbeddingModel) -> Result<ValidatedModel, Vec<FieldError>> {
    let name = model.name_any();
    let contract = resolve(&name, &model.spec, Target::Cluster)?;
    let files = contract.files();
    // It is reached from its own pod alone, so that nothing of a Service's port is mounted there.
    let serving = ServingConfig { endpoint: None, ..contract.serving.clone() };
    let injected = Contract { serving, policy: contract.policy.clone() }.files().serving;
    let owner = model.controller_owner_ref(&());
    Ok(ValidatedModel {
        namespace: model.namespace().unwrap_or_default(),
        owner: owner.expect("what the API server sends has a name and a uid"),
        spec: model.spec.clone(),
        serving_hash: hash(&files.serving),
        policy_hash: digest::of_part(&contract.policy_json()),
        space: SpaceId::of(&contract.serving),
        contract,
        files,
        injected,
        name,
    })
}

// === impl ValidatedModel ===

impl ValidatedModel {
    pub(crate) fn names(&self) -> Names<'_> {
        Names(&self.name)
    }
}

// === free functions ===

/// The hash of files, names and all: with another version beside them they are other files.
pub(super) fn hash(files: &BTreeMap<String, String>) -> String {
    digest::of_part(&serde_json::to_string(files).expect("it is plain data with text keys"))
}
