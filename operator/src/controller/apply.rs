//! Brings the cluster to what was built: server-side, in order. A child that is as it should be is left alone, one that
//! belongs to somebody else is never taken, and what should not be there any more is deleted.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::{
    Context,
    build::Prepared,
    failure::{ApplyError, kind},
    holds::holds,
    prune, rollouts,
    validate::ValidatedModel,
};
use crate::{
    children::Kept,
    kube_ext::{self, FIELD_MANAGER, REPLICAS_MANAGER},
    names, slim,
};

/// A version that no object has: the first that is written has a later one. Who applies an object of this version makes it,
/// or is told of a conflict.
const NOT_THERE: &str = "1";

/// What status is made of.
pub(super) struct Applied {
    /// The Deployment as the cluster has it.
    pub(super) deployment: Arc<Deployment>,
    /// Whether it is as an operator before made it, until the pods of other models have been replaced.
    pub(super) waits: bool,
    /// Whether there will be more to delete, which nothing tells of.
    pub(super) has_leftovers: bool,
}

/// Applies the children of a model, then deletes those that it has no more use for.
pub(super) async fn apply(
    context: &Context,
    model: &ValidatedModel,
    prepared: Prepared,
) -> Result<Applied, ApplyError> {
    let child = Applier { context, model };
    if let Some(account) = &prepared.service_account {
        child.apply(account).await?;
    }
    for config_map in &prepared.config_maps {
        child.apply(config_map).await?;
    }
    for service in &prepared.services {
        child.apply(service).await?;
    }
    // Before the pods: whom it keeps out never gets in.
    match &prepared.network_policy {
        Some(policy) => {
            child.apply(policy).await?;
        }
        None => prune::one::<NetworkPolicy>(context, model, &model.names().main()).await?,
    }
    let (deployment, waits) = child.deployment(&prepared).await?;
    match &prepared.autoscaler {
        Some(autoscaler) => {
            child.apply(autoscaler).await?;
        }
        None => {
            prune::one::<HorizontalPodAutoscaler>(context, model, &model.names().main()).await?
        }
    }
    child.apply(&prepared.disruption_budget).await?;
    if context.children.has_pod_monitors() {
        child.apply(&prepared.pod_monitor).await?;
    }
    if waits {
        return Ok(Applied { deployment, waits, has_leftovers: false });
    }
    if prepared.service_account.is_none() {
        prune::service_account(context, model, &deployment).await?;
    }
    let has_leftovers = prune::contracts(context, model, &deployment).await?;
    Ok(Applied { deployment, waits, has_leftovers })
}

/// A child as it is after it was applied.
struct Written<K> {
    child: Arc<K>,
    /// It was not there before.
    is_new: bool,
}

/// Applies the children of one model.
struct Applier<'a> {
    context: &'a Context,
    model: &'a ValidatedModel,
}

// === impl Applier ===

impl Applier<'_> {
    /// Applies a child, unless it is as it should be.
    async fn apply<K: Kept>(&self, child: &K) -> Result<Written<K>, ApplyError> {
        let (desired, name) = (hashed(child), child.name_any());
        match self.known::<K>(&name)? {
            Some(known) if is_applied(&desired, &*known) => {
                Ok(Written { child: known, is_new: false })
            }
            known => self.write(&name, &desired, known.and_then(|known| known.uid())).await,
        }
    }

    /// A child of ours, as the watches have told of it.
    fn known<K: Kept>(&self, name: &str) -> Result<Option<Arc<K>>, ApplyError> {
        let known = self.context.children.get::<K>(&self.model.namespace, name);
        known.iter().try_for_each(|known| self.owned::<K, K>(known, name))?;
        Ok(known)
    }

    /// Applies the Deployment, and its replicas as long as no autoscaler owns them. A new one begins with them either way, and
    /// so does one without any: an autoscaler leaves it alone.
    async fn deployment(&self, prepared: &Prepared) -> Result<(Arc<Deployment>, bool), ApplyError> {
        let (Written { child: deployment, is_new }, waits) =
            self.roll(&prepared.deployment).await?;
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let is_ours = prepared.autoscaler.is_none() || is_new || replicas == Some(0);
        if !is_ours || replicas == Some(prepared.replicas) && !is_new {
            return Ok((deployment, waits));
        }
        let name = deployment.name_any();
        let replicas = json!({
            "metadata": { "name": name, "uid": deployment.uid() },
            "spec": { "replicas": prepared.replicas },
        });
        let written = self.patch(&name, &replicas, REPLICAS_MANAGER).await;
        let deployment = written.map_err(|source| failed::<Deployment>(&name, source))?;
        Ok((deployment, waits))
    }

    /// Applies all of the Deployment but its replicas. One whose pods an upgrade of the operator would replace is left as it
    /// is while enough others are under way: it waits.
    async fn roll(&self, desired: &Deployment) -> Result<(Written<Deployment>, bool), ApplyError> {
        let (mut fields, name) = (hashed(desired), desired.name_any());
        let known = self.known::<Deployment>(&name)?;
        let Some(known) = known.filter(|known| rollouts::is_upgrade(&fields, known)) else {
            return Ok((self.apply(desired).await?, false));
        };
        let rollouts = &self.context.rollouts;
        let Some(leave) = rollouts.begin(&known, &self.context.children) else {
            return Ok((Written { child: known, is_new: false }, true));
        };
        fields["metadata"]["annotations"][names::UPGRADE] = env!("CARGO_PKG_VERSION").into();
        let written = self.write::<Deployment>(&name, &fields, known.uid()).await;
        let generation = written.as_ref().ok().and_then(|new| new.child.metadata.generation);
        rollouts.begun(leave, generation);
        Ok((written?, false))
    }

    /// Applies the object of this uid, or makes one. Another of the name is never overwritten: whether there is one is
    /// looked for only when the API server says so, since each look is a request.
    async fn write<K: Kept>(
        &self,
        name: &str,
        desired: &Value,
        uid: Option<String>,
    ) -> Result<Written<K>, ApplyError> {
        let first = self.write_as(name, desired, uid.as_deref()).await;
        let Err(conflict) = first else { return first.map_err(|error| failed::<K>(name, error)) };
        if !kube_ext::is_another(&conflict) {
            return Err(failed::<K>(name, conflict));
        }
        let api = Api::<K>::namespaced(self.context.client.clone(), &self.model.namespace);
        let found = api.get_metadata_opt(name).await.map_err(|source| {
            let (kind, name) = (kind::<K>(), name.to_owned());
            ApplyError::Look { kind, name, source }
        })?;
        if let Some(found) = &found {
            self.owned::<K, _>(found, name)?;
        }
        let uid = found.and_then(|found| found.uid());
        let again = self.write_as(name, desired, uid.as_deref()).await;
        again.map_err(|error| failed::<K>(name, error))
    }

    async fn write_as<K: Kept>(
        &self,
        name: &str,
        desired: &Value,
        uid: Option<&str>,
    ) -> kube::Result<Written<K>> {
        let mut desired = desired.clone();
        match uid {
            Some(uid) => desired["metadata"]["uid"] = uid.into(),
            None => desired["metadata"]["resourceVersion"] = NOT_THERE.into(),
        }
        let child = self.patch(name, &desired, FIELD_MANAGER).await?;
        Ok(Written { child, is_new: uid.is_none() })
    }

    /// Fails with who owns an object that is not our model's.
    fn owned<K: Kept, F: Resource>(&self, found: &F, name: &str) -> Result<(), ApplyError> {
        let owners = found.meta().owner_references.as_deref().unwrap_or_default();
        if owners.iter().any(|owner| owner.uid == self.model.owner.uid) {
            return Ok(());
        }
        let named = |owner: &OwnerReference| format!("{} {}", owner.kind, owner.name);
        let owner = owners.first().map_or_else(|| "nobody known".to_owned(), named);
        Err(ApplyError::Taken { kind: kind::<K>(), name: name.to_owned(), owner })
    }

    async fn patch<K: Kept>(
        &self,
        name: &str,
        fields: &Value,
        manager: &str,
    ) -> kube::Result<Arc<K>> {
        let place = [self.model.namespace.as_str(), name];
        tracing::debug!(kind = kind::<K>(), name, "applying");
        let client = &self.context.client;
        let mut applied = kube_ext::apply::<K>(client, fields, place, manager).await;
        // An edit of what identifies an entry of a list, such as a port's number, leaves two entries that cannot stand
        // side by side: our list takes the place of what is there.
        if applied.as_ref().is_err_and(|e| kube_ext::is_invalid(e) && !kube_ext::is_another(e))
            && fields["metadata"].get("uid").is_some()
            && let Ok(merged) = kube_ext::merge::<K>(client, fields, place, manager).await
            && kube_ext::disown_updates(client, &merged, manager).await.is_ok()
        {
            applied = kube_ext::apply::<K>(client, fields, place, manager).await;
        }
        if applied.is_ok() {
            self.context.metrics.applied();
        }
        applied.map(Arc::new)
    }
}

// === free functions ===

fn failed<K: Kept>(name: &str, source: kube::Error) -> ApplyError {
    ApplyError::Apply { kind: kind::<K>(), name: name.to_owned(), source }
}

/// A child with the hash of itself.
fn hashed<K: Kept>(child: &K) -> Value {
    let mut child = serde_json::to_value(child).expect("it is plain data with text keys");
    let hash = embark_crds::digest::of_part(&child.to_string());
    child["metadata"]["annotations"][names::APPLIED_HASH] = hash.into();
    child
}

/// Whether a live child was made from these fields and still has them.
fn is_applied<K: Kept>(desired: &Value, live: &K) -> bool {
    let Ok(live) = serde_json::to_value(live) else { return false };
    if desired.get("data").is_none() {
        return holds(&live, desired);
    }
    // Of a ConfigMap's texts, what is kept of the live ones.
    let mut desired = desired.clone();
    for text in desired["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
        *text = slim::text(text.as_str().unwrap_or_default()).into();
    }
    holds(&live, &desired)
}
