//! A model's children as they should be. Pure and infallible: the same model gives the same bytes.

mod autoscaler;
mod config_map;
mod deployment;
mod disruption_budget;
pub(crate) mod mounts;
mod network_policy;
mod pod_monitor;
mod service;
mod service_account;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub(crate) use self::deployment::REVISIONS;
use super::validate::ValidatedModel;
use crate::{pod_monitors::PodMonitor, settings::Settings};

/// The children of a model, in the order in which they are applied: what pods need comes before the pods.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// None when the model names one of its own.
    pub(crate) service_account: Option<ServiceAccount>,
    /// The contracts and the policy.
    pub(crate) config_maps: Vec<ConfigMap>,
    /// The one that callers use, and the one that finds every pod.
    pub(crate) services: Vec<Service>,
    /// None unless it is asked for.
    pub(crate) network_policy: Option<NetworkPolicy>,
    /// Without replicas: those have a field manager of their own.
    pub(crate) deployment: Deployment,
    /// The replicas that the spec asks for; with an autoscaler: those to begin with.
    pub(crate) replicas: i32,
    /// None without autoscaling.
    pub(crate) autoscaler: Option<HorizontalPodAutoscaler>,
    /// How many pods may be away at a time.
    pub(crate) disruption_budget: PodDisruptionBudget,
    /// It is made where there is the kind.
    pub(crate) pod_monitor: PodMonitor,
}

/// The children of `model`.
pub(super) fn build(model: &ValidatedModel, settings: &Settings) -> Prepared {
    let autoscaling = model.spec.autoscaling.as_ref();
    let policy = model.spec.network_policy.as_ref();
    Prepared {
        service_account: service_account::build(model),
        config_maps: config_map::build(model),
        services: service::build(model),
        network_policy: policy.map(|policy| network_policy::build(model, policy)),
        deployment: deployment::build(model, settings),
        replicas: autoscaling.map_or(model.spec.replicas, |autoscaling| autoscaling.min_replicas),
        autoscaler: autoscaling.map(|autoscaling| autoscaler::build(model, autoscaling)),
        disruption_budget: disruption_budget::build(model),
        pod_monitor: pod_monitor::build(model),
    }
}

// === free functions ===

/// The metadata that every child has.
fn metadata(model: &ValidatedModel, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(model.namespace.clone()),
        labels: Some(model.names().labels()),
        owner_references: Some(vec![model.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// A map with one more entry.
fn with(mut map: BTreeMap<String, String>, key: &str, value: &str) -> BTreeMap<String, String> {
    map.insert(key.to_owned(), value.to_owned());
    map
}
