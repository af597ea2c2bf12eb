//! What every step asks of the API server, of which kinds of objects, and who the operator says that it is.

use std::fmt::Debug;

use embark_crds::v1alpha1::EmbeddingModel;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DeserializeGuard,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Owns every field of a child that the operator sets, but a Deployment's replicas.
pub(crate) const FIELD_MANAGER: &str = "embark-operator";
/// Owns a Deployment's replicas, as long as no autoscaler does.
pub(crate) const REPLICAS_MANAGER: &str = "embark-operator-replicas";

/// An EmbeddingModel, or why what is stored is none: one that cannot be read stops nobody.
pub(crate) type Guarded = DeserializeGuard<EmbeddingModel>;

/// A namespaced object that is watched.
pub(crate) trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Watched for T where
    T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// A namespaced object that the operator makes.
pub(crate) trait Object: Watched + Serialize {}

impl<T: Watched + Serialize> Object for T {}

/// Applies an object on the server's side. What others own and we set is taken from them.
pub(crate) async fn apply<K: Object>(
    client: &Client,
    object: &impl Serialize,
    [namespace, name]: [&str; 2],
    manager: &str,
) -> kube::Result<K> {
    let parameters = PatchParams::apply(manager).force();
    let mut object = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    // Kubernetes' own types are written without them.
    object["apiVersion"] = K::api_version(&()).into();
    object["kind"] = K::kind(&()).into();
    let api = Api::<K>::namespaced(client.clone(), namespace);
    api.patch(name, &parameters, &Patch::Apply(object)).await
}

/// Merges fields into an object that is there: lists are replaced as a whole.
pub(crate) async fn merge<K: Object>(
    client: &Client,
    fields: &Value,
    [namespace, name]: [&str; 2],
    manager: &str,
) -> kube::Result<K> {
    let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..Default::default() };
    let api = Api::<K>::namespaced(client.clone(), namespace);
    api.patch(name, &parameters, &Patch::Merge(fields)).await
}

/// Gives up what a manager owns by updates, so that what it applies is all that it owns: else a field that it leaves out
/// some day would stay.
pub(crate) async fn disown_updates<K: Object>(
    client: &Client,
    object: &K,
    manager: &str,
) -> kube::Result<K> {
    let is_kept = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() != Some(manager) || entry.operation.as_deref() != Some("Update")
    };
    let kept: Vec<_> = object.managed_fields().iter().filter(is_kept).collect();
    let fields = json!({ "metadata": { "managedFields": kept } });
    let namespace = object.namespace().unwrap_or_default();
    merge(client, &fields, [&namespace, &object.name_any()], manager).await
}

/// Whether the API server found the object itself wrong.
pub(crate) fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

/// Whether a right is missing.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether there is no such object.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether an object of the name is there that is not the one that was meant, or none where one was.
pub(crate) fn is_another(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields = causes.map(|cause| cause.field.as_str());
    status.code == 409 || is_invalid(error) && fields.any(|field| field == "metadata.uid")
}

/// An error and what caused it, in one line. Of the API server's answers the sentence counts.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = sentence(error);
    let mut current = error;
    while let Some(cause) = current.source() {
        // The server's whole answer stands behind its sentence.
        if matches!(current.downcast_ref(), Some(kube::Error::Api(_))) {
            break;
        }
        line = format!("{line}: {}", sentence(cause));
        current = cause;
    }
    line
}

fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}

/// Deletes an object, unless it was replaced by another of the same name. Gone already is as good.
pub(crate) async fn delete<K: Object>(client: &Client, object: &K) -> kube::Result<()> {
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let preconditions = Preconditions { uid: object.uid(), resource_version: None };
    let parameters = DeleteParams::background().preconditions(preconditions);
    match api.delete(&object.name_any(), &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}
