//! What every step asks of the API server, and who the operator says that it is.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

/// Owns every field of a child that the operator sets, but a Deployment's replicas.
pub(crate) const FIELD_MANAGER: &str = "embark-operator";
/// Owns a Deployment's replicas, as long as no autoscaler does.
pub(crate) const REPLICAS_MANAGER: &str = "embark-operator-replicas";

/// A namespaced object that the operator makes.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Object for T where
    T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

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

/// Deletes an object, unless it was replaced by another of the same name. Gone already is as good.
pub(crate) async fn delete<K: Object>(client: &Client, object: &K) -> kube::Result<()> {
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let preconditions = Preconditions { uid: object.uid(), resource_version: None };
    let parameters = DeleteParams::background().preconditions(preconditions);
    match api.delete(&object.name_any(), &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
