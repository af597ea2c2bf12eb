//! Brings the cluster to what was built: server-side, in order. A child that is as it should be is left alone, one that
//! belongs to somebody else is never taken, and what should not be there any more is deleted.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::{Context, build::Prepared, names, prune, validate::ValidatedModel};
use crate::{
    children::Kept,
    kube_ext::{self, FIELD_MANAGER, REPLICAS_MANAGER},
};

/// Maps that select by all that is in them.
const WHOLE: [&str; 2] = ["selector", "matchLabels"];

/// Why the cluster could not be brought to what was built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("failed to apply {kind} {name}")]
    Apply { kind: String, name: String, source: kube::Error },
    #[error("failed to look for {kind} {name}")]
    Look { kind: String, name: String, source: kube::Error },
    #[error(
        "{kind} {name} is there already and belongs to {owner}: delete it, or name the model otherwise"
    )]
    Taken { kind: String, name: String, owner: String },
    #[error("failed to delete {kind} {name}, which the model has no more use for")]
    Prune { kind: String, name: String, source: kube::Error },
}

/// What status is made of.
pub(super) struct Applied {
    /// The Deployment as the cluster has it.
    pub(super) deployment: Arc<Deployment>,
    /// Whether it is as an operator before made it, until the pods of other models have been replaced.
    pub(super) waits: bool,
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
    let applied = child.deployment(&prepared).await?;
    match &prepared.autoscaler {
        Some(autoscaler) => {
            child.apply(autoscaler).await?;
        }
        None => {
            prune::one::<HorizontalPodAutoscaler>(context, model, &model.names().main()).await?
        }
    }
    child.apply(&prepared.disruption_budget).await?;
    if applied.waits {
        return Ok(applied);
    }
    if prepared.service_account.is_none() {
        prune::service_account(context, model, &applied.deployment).await?;
    }
    prune::contracts(context, model, &applied.deployment).await?;
    Ok(applied)
}

/// A child as the cluster has it.
enum Live<K> {
    /// There is none.
    Absent,
    /// It is the model's, and the watches have not told of it yet.
    Untold,
    /// It is the model's.
    Kept(Arc<K>),
}

/// Applies the children of one model.
struct Applier<'a> {
    context: &'a Context,
    model: &'a ValidatedModel,
}

// === impl Applier ===

impl Applier<'_> {
    /// Applies a child, unless it is as it should be.
    async fn apply<K: Kept>(&self, child: &K) -> Result<Arc<K>, ApplyError> {
        let desired = hashed(child);
        match self.live(child).await? {
            Live::Kept(live) if is_applied(&desired, &*live) => Ok(live),
            _ => self.patch(child, &desired, FIELD_MANAGER).await,
        }
    }

    /// Applies the Deployment, and its replicas as long as no autoscaler owns them. A new one begins with them either way.
    async fn deployment(&self, prepared: &Prepared) -> Result<Applied, ApplyError> {
        let live = self.live(&prepared.deployment).await?;
        let is_new = matches!(live, Live::Absent);
        let Applied { deployment, waits } = self.roll(&prepared.deployment, live).await?;
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let is_ours = prepared.autoscaler.is_none() || is_new;
        if !is_ours || replicas == Some(prepared.replicas) && !is_new {
            return Ok(Applied { deployment, waits });
        }
        let replicas = json!({
            "metadata": { "name": prepared.deployment.name_any() },
            "spec": { "replicas": prepared.replicas },
        });
        let deployment = self.patch(&prepared.deployment, &replicas, REPLICAS_MANAGER).await?;
        Ok(Applied { deployment, waits })
    }

    /// Applies all of the Deployment but its replicas. One whose pods an upgrade of the operator would replace is left as it
    /// is while enough others are under way.
    async fn roll(
        &self,
        desired: &Deployment,
        live: Live<Deployment>,
    ) -> Result<Applied, ApplyError> {
        let mut fields = hashed(desired);
        let is_upgrade = match live {
            Live::Kept(live) if is_applied(&fields, &*live) => {
                return Ok(Applied { deployment: live, waits: false });
            }
            Live::Kept(live) => is_upgrade(&fields, &live).then_some(live),
            Live::Absent | Live::Untold => None,
        };
        let Some(live) = is_upgrade else {
            let deployment = self.patch(desired, &fields, FIELD_MANAGER).await?;
            return Ok(Applied { deployment, waits: false });
        };
        let rollouts = &self.context.rollouts;
        let Some(leave) = rollouts.begin(&live, &self.context.children) else {
            return Ok(Applied { deployment: live, waits: true });
        };
        fields["metadata"]["annotations"][names::UPGRADE] = env!("CARGO_PKG_VERSION").into();
        let patched = self.patch(desired, &fields, FIELD_MANAGER).await;
        rollouts.begun(leave, patched.as_ref().ok().and_then(|new| new.metadata.generation));
        Ok(Applied { deployment: patched?, waits: false })
    }

    /// The child as it is. One of the same name that we do not keep track of is looked for, so that it is not overwritten.
    async fn live<K: Kept>(&self, child: &K) -> Result<Live<K>, ApplyError> {
        let (name, namespace) = (child.name_any(), &self.model.namespace);
        let taken = |owner| ApplyError::Taken { kind: kind::<K>(), name: name.clone(), owner };
        if let Some(live) = self.context.children.get::<K>(namespace, &name) {
            self.owned(&*live).map_err(taken)?;
            return Ok(Live::Kept(live));
        }
        let api = Api::<K>::namespaced(self.context.client.clone(), namespace);
        let found = api.get_metadata_opt(&name).await.map_err(|source| {
            let (kind, name) = (kind::<K>(), name.clone());
            ApplyError::Look { kind, name, source }
        })?;
        let Some(found) = found else { return Ok(Live::Absent) };
        self.owned(&found).map_err(taken)?;
        Ok(Live::Untold)
    }

    /// Fails with who owns an object that is not our model's.
    fn owned<K: Resource>(&self, object: &K) -> Result<(), String> {
        let owners = object.meta().owner_references.as_deref().unwrap_or_default();
        if owners.iter().any(|owner| owner.uid == self.model.owner.uid) {
            return Ok(());
        }
        let named = |owner: &OwnerReference| format!("{} {}", owner.kind, owner.name);
        Err(owners.first().map_or_else(|| "nobody known".to_owned(), named))
    }

    async fn patch<K: Kept>(
        &self,
        child: &K,
        fields: &Value,
        manager: &str,
    ) -> Result<Arc<K>, ApplyError> {
        let name = child.name_any();
        let place = [self.model.namespace.as_str(), &name];
        tracing::debug!(kind = kind::<K>(), name, "applying");
        let client = &self.context.client;
        let mut applied = kube_ext::apply::<K>(client, fields, place, manager).await;
        self.context.metrics.applied();
        // An edit of what identifies an entry of a list, such as a port's number, leaves two entries that cannot stand
        // side by side: our list takes the place of what is there.
        if applied.as_ref().is_err_and(kube_ext::is_invalid)
            && let Ok(merged) = kube_ext::merge::<K>(client, fields, place, manager).await
            && kube_ext::disown_updates(client, &merged, manager).await.is_ok()
        {
            applied = kube_ext::apply::<K>(client, fields, place, manager).await;
        }
        applied.map(Arc::new).map_err(|source| {
            let (kind, name) = (kind::<K>(), place[1].to_owned());
            ApplyError::Apply { kind, name, source }
        })
    }
}

// === impl ApplyError ===

impl ApplyError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            ApplyError::Apply { .. } => "ApplyFailed",
            ApplyError::Look { .. } => "LookupFailed",
            ApplyError::Taken { .. } => "NameTaken",
            ApplyError::Prune { .. } => "PruneFailed",
        }
    }
}

// === free functions ===

/// A LabelSelector, which holds such a map.
fn is_selector_of_labels(selector: &Value) -> bool {
    selector.get("matchLabels").is_some()
}

pub(super) fn kind<K: Kept>() -> String {
    K::kind(&()).into_owned()
}

/// A child with the hash of itself.
fn hashed<K: Kept>(child: &K) -> Value {
    let mut child = serde_json::to_value(child).expect("it is plain data with text keys");
    let hash = embark_crds::digest::of_part(&child.to_string());
    child["metadata"]["annotations"][names::APPLIED_HASH] = hash.into();
    child
}

/// Whether a Deployment is to have other pods although its model has not changed, and has pods that serve. What somebody
/// edited is not meant: the hash of what was applied is as it was then.
fn is_upgrade(desired: &Value, live: &Deployment) -> bool {
    let wanted = |name: &str| desired["metadata"]["annotations"][name].as_str();
    let found = |name: &str| live.annotations().get(name).map(String::as_str);
    let is_same_model =
        found(names::GENERATION).is_none_or(|found| Some(found) == wanted(names::GENERATION));
    let is_edited = found(names::APPLIED_HASH) == wanted(names::APPLIED_HASH);
    let serves = live.status.as_ref().and_then(|status| status.available_replicas) > Some(0);
    let template = live.spec.as_ref().map(|spec| json!(spec.template)).unwrap_or_default();
    is_same_model && !is_edited && serves && !holds(&template, &desired["spec"]["template"])
}

/// Whether a live child was made from these fields and still has them.
fn is_applied<K: Kept>(desired: &Value, live: &K) -> bool {
    let Ok(live) = serde_json::to_value(live) else { return false };
    holds(&live, desired)
}

/// Whether `live` has every field of `desired`. Maps and lists of maps may hold more, which others own, and defaults may
/// stand between; lists of words and selectors are one value each.
fn holds(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(name, desired)| {
            let is_whole = WHOLE.contains(&name.as_str()) && !is_selector_of_labels(desired);
            let fits = |live| if is_whole { live == desired } else { holds(live, desired) };
            live.get(name).is_some_and(fits)
        }),
        (Value::Array(live), Value::Array(desired)) if desired.iter().all(Value::is_object) => {
            desired.iter().all(|desired| live.iter().any(|live| holds(live, desired)))
        }
        (live, desired) => live == desired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_add_does_not_count_and_what_they_change_does() {
        let desired = json!({ "a": { "b": [{ "name": "x", "value": 1 }] }, "c": "d" });
        let mut live = desired.clone();
        live["a"]["default"] = true.into();
        live["a"]["b"][0]["default"] = true.into();
        live["a"]["b"].as_array_mut().unwrap().insert(0, json!({ "name": "y" }));
        assert!(holds(&live, &desired));
        for change in ["/a/b/1/value", "/c"] {
            let mut edited = live.clone();
            *edited.pointer_mut(change).unwrap() = "edited".into();
            assert!(!holds(&edited, &desired), "{change}");
        }
        live["a"]["b"] = json!([]);
        assert!(!holds(&live, &desired));
        for (live, desired) in [
            (json!({"args": ["a", "b"]}), json!({"args": ["a"]})),
            (json!({"args": ["b", "a"]}), json!({"args": ["a", "b"]})),
            (json!({"selector": {"a": "b", "c": "d"}}), json!({"selector": {"a": "b"}})),
        ] {
            assert!(!holds(&live, &desired), "{live}");
        }
        let labels = json!({"selector": {"matchLabels": {"a": "b"}}});
        assert!(holds(&labels, &labels));
    }
}
