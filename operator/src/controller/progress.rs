//! How far a Deployment is, by what Kubernetes says of it.

use k8s_openapi::api::apps::v1::Deployment;

/// How far a Deployment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rollout {
    pub(super) wanted: i32,
    pub(super) there: i32,
    pub(super) updated: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    /// Whether these numbers are of the Deployment as it is now.
    pub(super) is_current: bool,
}

/// Whether every pod is of the Deployment's newest revision and there is none beside them.
pub(super) fn is_rolled_out(deployment: &Deployment) -> bool {
    Rollout::of(deployment).is_done()
}

/// Whether pods of an older revision are still to be replaced. Pods that are missing, as those that a quota keeps away, are
/// no such.
pub(super) fn is_rolling_out(deployment: &Deployment) -> bool {
    let rollout = Rollout::of(deployment);
    !rollout.is_current || rollout.updated < rollout.there
}

// === impl Rollout ===

impl Rollout {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Rollout {
            wanted,
            there: status.replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            is_current: status.observed_generation >= deployment.metadata.generation,
        }
    }

    /// Whether every pod is of the newest revision and there is none beside them.
    pub(super) fn is_done(&self) -> bool {
        self.is_current && self.updated == self.there && self.updated >= self.wanted
    }
}
