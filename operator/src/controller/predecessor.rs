//! What a model of the same name has left behind: it becomes the new model's. Kubernetes deletes the children of an object
//! that is gone, but late, and never when its garbage collector missed that another object took the name while it was not
//! watching; what has an owner it leaves alone.

use embark_crds::v1alpha1::EmbeddingModel;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams};
use serde_json::json;

use super::{
    Context,
    failure::{ApplyError, kind},
    validate::ValidatedModel,
};
use crate::{
    children::Kept,
    kube_ext::{self, FIELD_MANAGER},
    pod_monitors::PodMonitor,
};

/// Takes what is known of it, and tells whether there was anything. What the new model has no use for is pruned as its own.
///
/// # Errors
/// The cluster could not be asked, or did not give it.
pub(super) async fn inherit(context: &Context, model: &ValidatedModel) -> Result<bool, ApplyError> {
    let mut heir = Heir { context, model, verdict: None };
    let (main, pods) = (model.names().main(), model.names().pods());
    heir.named::<Deployment>(&main).await?;
    heir.named::<HorizontalPodAutoscaler>(&main).await?;
    heir.named::<PodDisruptionBudget>(&main).await?;
    heir.named::<PodMonitor>(&main).await?;
    heir.named::<Service>(&main).await?;
    heir.named::<Service>(&pods).await?;
    heir.named::<NetworkPolicy>(&main).await?;
    heir.named::<ServiceAccount>(&main).await?;
    // Contracts of whatever revisions.
    for contract in context.children.of_model::<ConfigMap>(&model.namespace, &model.name) {
        heir.child(&*contract).await?;
    }
    Ok(heir.verdict == Some(true))
}

struct Heir<'a> {
    context: &'a Context,
    model: &'a ValidatedModel,
    /// Whether ours is the model that has the name, once somebody had to know.
    verdict: Option<bool>,
}

// === impl Heir ===

impl Heir<'_> {
    async fn named<K: Kept>(&mut self, name: &str) -> Result<(), ApplyError> {
        match self.context.children.get::<K>(&self.model.namespace, name) {
            Some(child) => self.child(&*child).await,
            None => Ok(()),
        }
    }

    async fn child<K: Kept>(&mut self, child: &K) -> Result<(), ApplyError> {
        if !self.is_of_another(child) || !self.has_the_name().await? {
            return Ok(());
        }
        let (kind, name) = (kind::<K>(), child.name_any());
        tracing::info!(kind, name, "taking it over from a model that had the name before");
        let fields = json!({
            "metadata": { "uid": child.uid(), "ownerReferences": [self.model.owner] },
        });
        let place = [self.model.namespace.as_str(), &name];
        match kube_ext::merge::<K>(&self.context.client, &fields, place, FIELD_MANAGER).await {
            // The garbage collector was faster, and the watch will tell of it.
            Err(error) if kube_ext::is_gone(&error) || kube_ext::is_another(&error) => Ok(()),
            Err(source) => Err(ApplyError::Apply { kind, name, source }),
            Ok(_) => Ok(()),
        }
    }

    /// Whether a child is owned by a model of this name that is not ours.
    fn is_of_another<K: Kept>(&self, child: &K) -> bool {
        let mut owners = child.meta().owner_references.iter().flatten();
        let controller = owners.find(|owner| {
            owner.controller == Some(true) && owner.kind == EmbeddingModel::kind(&())
        });
        let group = format!("{}/", EmbeddingModel::group(&()));
        controller.is_some_and(|owner| {
            owner.api_version.starts_with(&group)
                && owner.name == self.model.name
                && owner.uid != self.model.owner.uid
        }) && child.meta().deletion_timestamp.is_none()
    }

    /// Whether the name is our model's: then the other is gone. What the watch has told may be older than the other is.
    async fn has_the_name(&mut self) -> Result<bool, ApplyError> {
        if let Some(verdict) = self.verdict {
            return Ok(verdict);
        }
        let name = &self.model.name;
        let api =
            Api::<EmbeddingModel>::namespaced(self.context.client.clone(), &self.model.namespace);
        // A list of one, since models can be listed anyway: to get one would be a right more.
        let one = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = api.list_metadata(&one).await.map_err(|source| {
            let kind = EmbeddingModel::kind(&()).into_owned();
            ApplyError::Look { kind, name: name.clone(), source }
        })?;
        let is_ours = |found: &str| found == self.model.owner.uid;
        let verdict = found.items.iter().any(|model| model.uid().as_deref().is_some_and(is_ours));
        Ok(*self.verdict.insert(verdict))
    }
}
