//! Whom a model's pods act as: nobody. No token is mounted.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{ValidatedModel, metadata};

pub(super) fn build(model: &ValidatedModel) -> Option<ServiceAccount> {
    if model.spec.pod.service_account_name.is_some() {
        return None;
    }
    Some(ServiceAccount {
        metadata: metadata(model, model.names().main()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
