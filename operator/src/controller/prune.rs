//! Deletes children that a model has no more use for. Only what the model owns is ever deleted.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod, PodSpec, ServiceAccount},
};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    Context, build,
    failure::{ApplyError, kind},
    progress,
    validate::ValidatedModel,
};
use crate::{children::Kept, kube_ext, names};

/// Deletes a child by name, if there is one.
pub(super) async fn one<K: Kept>(
    context: &Context,
    model: &ValidatedModel,
    name: &str,
) -> Result<(), ApplyError> {
    match context.children.get::<K>(&model.namespace, name) {
        Some(child) if is_owned(&*child, model) => delete(context, &*child).await,
        _ => Ok(()),
    }
}

/// Deletes the account of a model that names another, once no pod needs it any more.
pub(super) async fn service_account(
    context: &Context,
    model: &ValidatedModel,
    deployment: &Deployment,
) -> Result<(), ApplyError> {
    let own = model.names().main();
    let is_named = model.spec.pod.service_account_name.as_ref() == Some(&own);
    if is_named || !progress::is_rolled_out(deployment) {
        return Ok(());
    }
    one::<ServiceAccount>(context, model, &own).await
}

/// Deletes the contracts of a pool that no pod and no revision refers to, once a roll-out is over. Gives whether there will
/// be more to delete: Kubernetes deletes old revisions when it gets to it, and nothing tells of that.
pub(super) async fn contracts(
    context: &Context,
    model: &ValidatedModel,
    deployment: &Deployment,
) -> Result<bool, ApplyError> {
    let current = model.names().pool_contract(&model.serving_hash);
    let mut old = context.children.of_model::<ConfigMap>(&model.namespace, &model.name);
    old.retain(|config_map| {
        let role = config_map.labels().get(names::ROLE);
        role.is_some_and(|role| role == names::POOL_CONTRACT)
            && config_map.name_any() != current
            && is_owned(&**config_map, model)
    });
    if old.is_empty() || !progress::is_rolled_out(deployment) {
        return Ok(false);
    }
    let used = used(context, model).await?;
    let (kept, unused): (Vec<_>, Vec<_>) =
        old.iter().partition(|config_map| used.contains(&config_map.name_any()));
    for config_map in unused {
        delete(context, &**config_map).await?;
    }
    Ok(kept.len() > build::REVISIONS)
}

// === free functions ===

/// Every ConfigMap that a pod or a revision of the model mounts.
async fn used(context: &Context, model: &ValidatedModel) -> Result<BTreeSet<String>, ApplyError> {
    let api = Api::<ReplicaSet>::namespaced(context.client.clone(), &model.namespace);
    let selector = names::selector_text(&model.names().selector());
    let revisions = api.list(&ListParams::default().labels(&selector)).await.map_err(|source| {
        let (kind, name) = ("ReplicaSet".to_owned(), selector.clone());
        ApplyError::Look { kind, name, source }
    })?;
    // Those on their way out, too: they may take their time.
    let mut pods = context.children.all::<Pod>();
    pods.retain(|pod| {
        pod.namespace().as_deref() == Some(&model.namespace)
            && names::model_of(pod.labels()) == Some(&model.name)
    });
    let of_pods = pods.iter().filter_map(|pod| pod.spec.as_ref());
    let of_revisions = revisions
        .iter()
        .filter_map(|revision| revision.spec.as_ref()?.template.as_ref()?.spec.as_ref());
    Ok(of_pods.chain(of_revisions).flat_map(mounted).collect())
}

fn mounted(pod: &PodSpec) -> Vec<String> {
    let volumes = pod.volumes.iter().flatten();
    volumes.filter_map(|volume| Some(volume.config_map.as_ref()?.name.clone())).collect()
}

fn is_owned(child: &impl kube::Resource, model: &ValidatedModel) -> bool {
    let owners = child.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.uid == model.owner.uid)
}

async fn delete<K: Kept>(context: &Context, child: &K) -> Result<(), ApplyError> {
    tracing::info!(kind = kind::<K>(), name = child.name_any(), "deleting, no more of use");
    kube_ext::delete(&context.client, child).await.map_err(|source| {
        let (kind, name) = (kind::<K>(), child.name_any());
        ApplyError::Prune { kind, name, source }
    })
}
