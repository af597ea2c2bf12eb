//! How many of a model's pods a drain of nodes may take away at a time.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{ValidatedModel, metadata};

pub(super) fn build(model: &ValidatedModel) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(model, model.names().main()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(model.spec.disruption_budget.max_unavailable.clone()),
            selector: Some(LabelSelector {
                match_labels: Some(model.names().selector()),
                ..LabelSelector::default()
            }),
            // A pod that never became ready holds up no drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
