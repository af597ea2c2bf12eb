//! What a model of the same name has left behind. Kubernetes deletes the children of an object that is gone, but late, and
//! never when its garbage collector missed that another object took the name while it was not watching.

use embark_crds::v1alpha1::EmbeddingModel;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams};

use super::{
    Context,
    failure::{ApplyError, kind},
    validate::ValidatedModel,
};
use crate::{children::Kept, kube_ext, pod_monitors::PodMonitor};

/// Deletes what is known of it, and tells whether there was anything.
///
/// # Errors
/// The cluster could not be asked, or did not delete it.
pub(super) async fn clear(context: &Context, model: &ValidatedModel) -> Result<bool, ApplyError> {
    let mut clearer = Clearer { context, model, verdict: None };
    clearer.kind::<Deployment>().await?;
    clearer.kind::<HorizontalPodAutoscaler>().await?;
    clearer.kind::<PodDisruptionBudget>().await?;
    clearer.kind::<PodMonitor>().await?;
    clearer.kind::<Service>().await?;
    clearer.kind::<NetworkPolicy>().await?;
    clearer.kind::<ConfigMap>().await?;
    clearer.kind::<ServiceAccount>().await?;
    Ok(clearer.verdict == Some(true))
}

struct Clearer<'a> {
    context: &'a Context,
    model: &'a ValidatedModel,
    /// Whether ours is the model that has the name, once somebody had to know.
    verdict: Option<bool>,
}

// === impl Clearer ===

impl Clearer<'_> {
    async fn kind<K: Kept>(&mut self) -> Result<(), ApplyError> {
        let mut left = self.context.children.of_model::<K>(&self.model.namespace, &self.model.name);
        left.retain(|child| self.is_of_another(&**child));
        for child in left {
            if !self.has_the_name().await? {
                return Ok(());
            }
            let (kind, name) = (kind::<K>(), child.name_any());
            tracing::info!(kind, name, "deleting, of a model that had the name before");
            kube_ext::delete(&self.context.client, &*child)
                .await
                .map_err(|source| ApplyError::Prune { kind, name, source })?;
        }
        Ok(())
    }

    /// Whether a child is owned by a model of this name that is not ours.
    fn is_of_another<K: Kept>(&self, child: &K) -> bool {
        let owner = child.meta().owner_references.iter().flatten().find(|owner| {
            owner.controller == Some(true) && owner.kind == EmbeddingModel::kind(&())
        });
        let group = format!("{}/", EmbeddingModel::group(&()));
        owner.is_some_and(|owner| {
            owner.api_version.starts_with(&group)
                && owner.name == self.model.name
                && owner.uid != self.model.owner.uid
        })
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
