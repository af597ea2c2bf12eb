//! The conditions of a model.

use embark_crds::contract::{
    ADMIN_PORT,
    report::{DiskState, ModelState},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::{Observed, PodView};
use crate::{
    controller::{progress::Rollout, rollouts::AT_ONCE},
    names::{CONDITION_TYPES, PAUSED},
    words::{cleaned, cut},
};

/// One condition, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) struct Verdict {
    /// What it is about.
    pub(in crate::controller) type_: &'static str,
    /// Whether it is so; `None`: nobody knows.
    pub(in crate::controller) holds: Option<bool>,
    /// One word of a closed list.
    pub(in crate::controller) reason: &'static str,
    /// The sentence.
    pub(in crate::controller) message: String,
}

/// The conditions of a model whose children were applied.
pub(super) fn of_applied(observed: &Observed<'_>, rollout: &Rollout) -> Vec<Verdict> {
    let verified = model_verified(observed);
    let available = available(rollout);
    let ready = ready(observed, rollout, &verified, &available);
    vec![
        Verdict::new("Accepted", Some(true), "Accepted", "the spec is valid"),
        verified,
        available,
        progressing(observed, rollout),
        cache_healthy(observed),
        ready,
    ]
}

/// The conditions of a model that nothing is applied of: whether its pods serve, and that there is no progress.
pub(super) fn of_paused(rollout: Option<&Rollout>) -> Vec<Verdict> {
    let paused = || format!("the annotation {PAUSED} holds back every change");
    let mut verdicts = vec![Verdict::new("Progressing", Some(false), "Paused", paused())];
    match rollout.map(available) {
        Some(available) => {
            let holds = available.holds == Some(true);
            let reason = if holds { "Serving" } else { available.reason };
            let message = available.message.clone();
            verdicts.extend([available, Verdict::new("Ready", Some(holds), reason, message)]);
        }
        None => verdicts.push(Verdict::new("Ready", Some(false), "Paused", paused())),
    }
    verdicts
}

/// Our conditions of a model with these among them; those of others are theirs to write. One whose state did not change
/// keeps the time of its last change.
pub(super) fn merge(
    before: &[Condition],
    generation: Option<i64>,
    verdicts: Vec<Verdict>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = before.to_vec();
    conditions.retain(|condition| CONDITION_TYPES.contains(&condition.type_.as_str()));
    for verdict in verdicts {
        let old = conditions.iter().position(|condition| condition.type_ == verdict.type_);
        let old = old.map(|at| conditions.remove(at));
        conditions.push(verdict.condition(generation, old, now));
    }
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

// === impl Verdict ===

impl Verdict {
    pub(in crate::controller) fn new(
        type_: &'static str,
        holds: Option<bool>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Verdict { type_, holds, reason, message: message.into() }
    }

    fn condition(
        self,
        generation: Option<i64>,
        old: Option<Condition>,
        now: Timestamp,
    ) -> Condition {
        let status = match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time);
        Condition {
            type_: self.type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: cut(self.message),
            observed_generation: generation,
            last_transition_time: since.unwrap_or(Time(now)),
        }
    }
}

// === free functions ===

/// Whether pods have checked the model's digest and tried it out. One that failed outweighs those that serve: they may be
/// of an older revision.
fn model_verified(observed: &Observed<'_>) -> Verdict {
    const TYPE: &str = "ModelVerified";
    if let Some((pod, message)) = failed(observed) {
        return Verdict::new(TYPE, Some(false), "ModelFailed", words(pod, message));
    }
    let space = observed.validated.space.to_string();
    let is_ready = |pod: &&PodView| {
        pod.said().is_some_and(|said| said.state == ModelState::Ready && said.space_id == space)
    };
    match observed.pods.iter().filter(is_ready).count() {
        0 => {
            let message = unheard(observed);
            let message = message.unwrap_or_else(|| "no pod has tried the model out yet".into());
            Verdict::new(TYPE, None, "NoReport", message)
        }
        pods => Verdict::new(TYPE, Some(true), "Verified", format!("tried out by {pods} pods")),
    }
}

fn available(rollout: &Rollout) -> Verdict {
    const TYPE: &str = "Available";
    let message = format!("{} of {} pods are available", rollout.available, rollout.wanted);
    match (rollout.wanted, rollout.available) {
        (0, _) => Verdict::new(TYPE, Some(false), "ScaledToZero", "no pods are wanted"),
        (_, 0) => Verdict::new(TYPE, Some(false), "NoPods", message),
        _ => Verdict::new(TYPE, Some(true), "PodsAvailable", message),
    }
}

fn progressing(observed: &Observed<'_>, rollout: &Rollout) -> Verdict {
    const TYPE: &str = "Progressing";
    if observed.waits {
        let message = format!("an upgrade of the operator rolls {AT_ONCE} models at a time");
        return Verdict::new(TYPE, Some(true), "WaitingToRoll", message);
    }
    if rollout.is_done() {
        return Verdict::new(TYPE, Some(false), "RolledOut", "every pod follows the spec");
    }
    let message = format!("{} of {} pods follow the spec", rollout.updated, rollout.wanted);
    Verdict::new(TYPE, Some(true), "RollingOut", message)
}

fn cache_healthy(observed: &Observed<'_>) -> Verdict {
    const TYPE: &str = "CacheHealthy";
    let caches = || observed.pods.iter().filter_map(|pod| Some((pod, pod.said()?.cache.as_ref()?)));
    let degraded = caches().find(|(_, cache)| cache.disk.state == DiskState::Degraded);
    if let Some((pod, cache)) = degraded {
        let message = words(pod, &cache.disk.message);
        return Verdict::new(TYPE, Some(false), "DiskDegraded", message);
    }
    if let Some((pod, cache)) = caches().find(|(_, cache)| !cache.message.is_empty()) {
        return Verdict::new(TYPE, Some(false), "PolicyRefused", words(pod, &cache.message));
    }
    match caches().count() {
        0 => Verdict::new(TYPE, None, "NoReport", "no pod has told of its cache yet"),
        pods => Verdict::new(TYPE, Some(true), "Healthy", format!("healthy in {pods} pods")),
    }
}

/// Whether the model is served as its spec says: every pod follows it, and at least one is available, which the kubelet
/// grants only to a pod that has tried the model out. More pods on their way, as an autoscaler asks for, change nothing
/// of that, whatever becomes of them.
fn ready(
    observed: &Observed<'_>,
    rollout: &Rollout,
    verified: &Verdict,
    available: &Verdict,
) -> Verdict {
    const TYPE: &str = "Ready";
    let is_replaced = rollout.is_current && rollout.updated == rollout.there;
    if is_replaced && available.holds == Some(true) {
        return Verdict::new(TYPE, Some(true), "Serving", available.message.clone());
    }
    if verified.holds == Some(false) {
        return Verdict { type_: TYPE, ..verified.clone() };
    }
    let trouble = observed.pods.iter().find_map(|pod| Some((pod, pod.trouble.as_ref()?)));
    if let Some((pod, trouble)) = trouble {
        return Verdict::new(TYPE, Some(false), "PodFailed", words(pod, trouble));
    }
    // There is no pod that could say it: a quota, a policy or a webhook let none be made.
    if let Some(failure) = replica_failure(observed) {
        return Verdict::new(TYPE, Some(false), "PodsRefused", cleaned(&failure));
    }
    if rollout.wanted == 0 {
        return Verdict { type_: TYPE, ..available.clone() };
    }
    let message = waiting(observed).unwrap_or_else(|| available.message.clone());
    Verdict::new(TYPE, Some(false), "RollingOut", message)
}

/// Why no more pods could be made, in Kubernetes' words.
fn replica_failure(observed: &Observed<'_>) -> Option<String> {
    let conditions = observed.deployment.status.as_ref()?.conditions.iter().flatten();
    let failure = conditions
        .into_iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    failure.message.clone().or_else(|| failure.reason.clone())
}

fn failed<'a>(observed: &'a Observed<'_>) -> Option<(&'a PodView, &'a str)> {
    observed.pods.iter().find_map(|pod| {
        let said = pod.said().filter(|said| said.state == ModelState::Failed)?;
        Some((pod, said.message.as_str()))
    })
}

/// What the pods that are not ready are busy with.
fn waiting(observed: &Observed<'_>) -> Option<String> {
    let unready = |pod: &&PodView| pod.said().is_some_and(|said| said.state != ModelState::Ready);
    let Some(pod) = observed.pods.iter().find(unready) else {
        return unheard(observed);
    };
    let said = pod.said()?;
    Some(match said.message.as_str() {
        "" => words(pod, said.state.as_str()),
        message => words(pod, message),
    })
}

/// Why a pod says nothing. A policy or a mesh between it and the operator shows nowhere else.
fn unheard(observed: &Observed<'_>) -> Option<String> {
    observed.pods.iter().find_map(|pod| {
        let why = pod.report.as_ref()?.as_ref().err()?;
        Some(words(pod, &format!("could not be asked at port {ADMIN_PORT}: {why}")))
    })
}

fn words(pod: &PodView, message: &str) -> String {
    format!("pod {}: {message}", pod.name)
}
