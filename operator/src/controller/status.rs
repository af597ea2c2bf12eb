//! What the operator says of a model: conditions of what was applied and of what its pods say. Pure, but for the writer,
//! which does nothing when nothing changed.

mod conditions;
#[cfg(test)]
mod tests;
mod troubles;
mod writer;

use embark_crds::{
    contract::report::ModelReport,
    v1alpha1::{CacheStatus, EmbeddingModel, EmbeddingModelStatus, PolicyStatus},
};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::Timestamp,
};
use kube::ResourceExt as _;

use self::conditions::merge;
pub(super) use self::{
    conditions::Verdict,
    writer::{Conditions, Statuses},
};
use super::{progress::Rollout, validate::ValidatedModel};
use crate::names;

/// A pod of a model, and what it says.
#[derive(Clone, Debug)]
pub(super) struct PodView {
    pub(super) name: String,
    /// Why its container does not run, in Kubernetes' words.
    pub(super) trouble: Option<String>,
    /// What it says; an error says why it says nothing. `None`: it was not asked yet.
    pub(super) report: Option<Result<ModelReport, String>>,
}

/// Everything that a model's status is made of.
pub(super) struct Observed<'a> {
    pub(super) validated: &'a ValidatedModel,
    pub(super) deployment: &'a Deployment,
    pub(super) pods: Vec<PodView>,
    /// Whether the pods are those of an operator before, until others have been replaced.
    pub(super) waits: bool,
}

/// The status of a model that was applied.
pub(super) fn of_applied(
    model: &EmbeddingModel,
    observed: &Observed<'_>,
    now: Timestamp,
) -> EmbeddingModelStatus {
    let rollout = Rollout::of(observed.deployment);
    let (validated, names) = (observed.validated, observed.validated.names());
    let verdicts = conditions::of_applied(observed, &rollout);
    EmbeddingModelStatus {
        observed_generation: model.metadata.generation,
        replicas: Some(rollout.there),
        ready_replicas: Some(rollout.ready),
        selector: Some(names::selector_text(&names.selector())),
        address: Some(names.address(&validated.namespace)),
        model_digest: Some(validated.contract.serving.model.sha256.to_string()),
        space_id: Some(validated.space.to_string()),
        policy: Some(policy(observed)),
        cache: cache(observed),
        conditions: merge(conditions_of(model), model.metadata.generation, verdicts, now),
    }
}

/// The status of a model that was not applied: what was so before still is, but for what the verdicts say.
pub(super) fn of_refused(
    model: &EmbeddingModel,
    verdicts: Vec<Verdict>,
    now: Timestamp,
) -> EmbeddingModelStatus {
    EmbeddingModelStatus {
        observed_generation: model.metadata.generation,
        conditions: merge(conditions_of(model), model.metadata.generation, verdicts, now),
        ..model.status.clone().unwrap_or_default()
    }
}

/// The status of a model that nothing is applied of for now: its pods are told of as they are, and of all else what was so
/// before.
pub(super) fn of_paused(
    model: &EmbeddingModel,
    deployment: Option<&Deployment>,
    now: Timestamp,
) -> EmbeddingModelStatus {
    let before = model.status.clone().unwrap_or_default();
    let rollout = deployment.map(Rollout::of);
    let verdicts = conditions::of_paused(rollout.as_ref());
    EmbeddingModelStatus {
        replicas: rollout.map(|rollout| rollout.there).or(before.replicas),
        ready_replicas: rollout.map(|rollout| rollout.ready).or(before.ready_replicas),
        // Not the present generation: nothing was made of that.
        conditions: merge(conditions_of(model), before.observed_generation, verdicts, now),
        ..before
    }
}

/// Whether a status says the same, but for numbers that always move: they alone are no reason to write. Of the cache's the
/// share of hits counts, which is told seldom.
pub(super) fn is_same(old: &EmbeddingModelStatus, new: &EmbeddingModelStatus) -> bool {
    let steady = |status: &EmbeddingModelStatus| {
        let hits = status.cache.as_ref().map(|cache| cache.hit_percent);
        (hits, EmbeddingModelStatus { cache: None, ..status.clone() })
    };
    steady(old) == steady(new)
}

/// How a pod looks from outside.
pub(super) fn view(pod: &Pod, report: Option<Result<ModelReport, String>>) -> PodView {
    PodView { name: pod.name_any(), trouble: troubles::of_pod(pod), report }
}

// === impl PodView ===

impl PodView {
    fn said(&self) -> Option<&ModelReport> {
        self.report.as_ref()?.as_ref().ok()
    }
}

// === free functions ===

fn conditions_of(model: &EmbeddingModel) -> &[Condition] {
    model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

fn policy(observed: &Observed<'_>) -> PolicyStatus {
    let desired_hash = observed.validated.policy_hash.clone();
    let follows = |pod: &&PodView| pod.said().is_some_and(|said| said.policy_hash == desired_hash);
    PolicyStatus {
        pods_current: count(observed.pods.iter().filter(follows).count()),
        pods_total: count(observed.pods.len()),
        desired_hash,
    }
}

fn cache(observed: &Observed<'_>) -> Option<CacheStatus> {
    let caches: Vec<_> =
        observed.pods.iter().filter_map(|pod| pod.said()?.cache.as_ref()).collect();
    let sum = |part: fn(&embark_crds::contract::report::CacheReport) -> u64| {
        let sum = caches.iter().fold(0_u64, |sum, cache| sum.saturating_add(part(cache)));
        i64::try_from(sum).unwrap_or(i64::MAX)
    };
    (!caches.is_empty()).then(|| CacheStatus {
        hit_percent: percent(sum(|cache| cache.recent.hits), sum(|cache| cache.recent.items)),
        entries: sum(|cache| cache.memory.entries),
        bytes: sum(|cache| cache.memory.bytes.saturating_add(cache.disk.bytes)),
    })
}

/// `None`: there was nothing to hit.
fn percent(hits: i64, items: i64) -> Option<i32> {
    let percent = i128::from(hits) * 100 / i128::from((items > 0).then_some(items)?);
    i32::try_from(percent.clamp(0, 100)).ok()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
