//! Why a pod's container does not run, in Kubernetes' own words.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::{names::CONTAINER, words::cleaned};

/// What a container waits for as a matter of course.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Why a pod does not serve, as far as its own process cannot say it.
pub(super) fn of_pod(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let container = containers.into_iter().find(|container| container.name == CONTAINER);
    match container {
        Some(container) => of_container(container),
        None => {
            let conditions = status.conditions.iter().flatten();
            let unscheduled = conditions
                .into_iter()
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
            let message = unscheduled?.message.as_deref()?;
            Some(cleaned(&format!("cannot be scheduled: {message}")))
        }
    }
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !USUAL.contains(reason))?;
    let last = container.last_state.as_ref().and_then(last_words);
    let words = last.or_else(|| waiting.message.clone()).unwrap_or_default();
    Some(cleaned(&format!("{reason}: {words}")))
}

/// What a container that ended left behind.
fn last_words(last: &ContainerState) -> Option<String> {
    let ended = last.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("ended");
    let message = ended.message.as_deref().unwrap_or_default().trim();
    // The end of a log says why the process ended.
    let line = message.lines().last().unwrap_or_default();
    Some(format!("{reason}, exit code {}: {line}", ended.exit_code))
}
