//! Brings a changed cache policy to the pods at once: the kubelet looks at a pod's mounts when the pod changes, and else
//! only every minute or so.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

use super::{Context, validate::ValidatedModel};
use crate::{
    kube_ext::{self, FIELD_MANAGER, chain},
    names,
};

/// Pods that are written to at a time.
const AT_A_TIME: usize = 8;

/// Changes the pods that say that they follow another policy, once for each policy. A pod that cannot be changed comes to
/// know of the policy all the same, only later.
pub(super) async fn refresh(context: &Context, model: &ValidatedModel, pods: &[Arc<Pod>]) {
    let behind = pods.iter().filter(|pod| {
        let report = pod.uid().and_then(|uid| context.reports.of(&uid)).and_then(Result::ok);
        report.is_some_and(|report| report.policy_hash != model.policy_hash)
            && pod.annotations().get(names::POLICY_HASH) != Some(&model.policy_hash)
    });
    let fields = json!({
        "metadata": { "annotations": { (names::POLICY_HASH): model.policy_hash } },
    });
    let touched = stream::iter(behind).for_each_concurrent(AT_A_TIME, async |pod| {
        let place = [model.namespace.as_str(), &pod.name_any()];
        let changed = kube_ext::merge::<Pod>(&context.client, &fields, place, FIELD_MANAGER).await;
        if let Err(error) = changed {
            tracing::debug!(pod = place[1], "could not be told of its policy: {}", chain(&error));
        }
    });
    touched.await;
}
