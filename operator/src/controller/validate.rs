//! Whether a model can be built. The only place where a user is told no.

use embark_crds::{
    contract::{Contract, Location},
    digest::{self, SpaceId},
    resolve::{FieldError, Target, resolve},
    v1alpha1::{EmbeddingModel, EmbeddingModelSpec},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};

use super::names::Names;

/// A model that can be built.
///
/// # Guarantees
/// The contract is that of the spec, and the hashes are those of its parts.
#[derive(Clone, Debug)]
pub(crate) struct ValidatedModel {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Moves with the spec.
    pub(crate) generation: i64,
    /// What its children are owned by.
    pub(crate) owner: OwnerReference,
    pub(crate) spec: EmbeddingModelSpec,
    pub(crate) contract: Contract,
    /// The hash of the part of the contract that rolls the pods.
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
    let unsupported = unsupported(&model.spec, &contract);
    if !unsupported.is_empty() {
        return Err(unsupported);
    }
    let owner = model.controller_owner_ref(&());
    Ok(ValidatedModel {
        namespace: model.namespace().unwrap_or_default(),
        generation: model.metadata.generation.unwrap_or_default(),
        owner: owner.expect("what the API server sends has a name and a uid"),
        spec: model.spec.clone(),
        serving_hash: digest::of_part(&contract.serving_json()),
        policy_hash: digest::of_part(&contract.policy_json()),
        space: SpaceId::of(&contract.serving),
        contract,
        name,
    })
}

/// What no pod is made for yet.
fn unsupported(spec: &EmbeddingModelSpec, contract: &Contract) -> Vec<FieldError> {
    let leave = "is not supported yet; leave it out";
    let mut asked = vec![(spec.network_policy.is_some(), "spec.networkPolicy".to_owned(), leave)];
    for (field, artifact) in contract.serving.artifacts() {
        let is_volume = matches!(artifact.location, Location::Pvc { .. });
        asked.extend([
            (artifact.has_secret, format!("{field}.secretRef"), leave),
            (artifact.has_ca_bundle, format!("{field}.caBundleRef"), leave),
            (is_volume, format!("{field}.uri"), "pvc:// is not supported yet"),
        ]);
    }
    let asked = asked.into_iter().filter(|(asked, ..)| *asked);
    asked.map(|(_, field, sentence)| FieldError::of_field(&field, sentence)).collect()
}

// === impl ValidatedModel ===

impl ValidatedModel {
    pub(crate) fn names(&self) -> Names<'_> {
        Names(&self.name)
    }
}
