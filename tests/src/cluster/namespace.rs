//! A namespace of a test's own.

use std::{ffi::OsStr, process::Stdio};

use k8s_openapi::{NamespaceResourceScope, api::core::v1};
use kube::{Api, Resource, api::PostParams};
use serde_json::{Value, json};

use super::ControlPlane;
use crate::sidecar::until;

/// A namespace that is deleted with this value. When a test panics, what it was is kept first, in a folder that the
/// test's output names.
#[derive(Debug)]
pub struct Namespace {
    plane: ControlPlane,
    name: String,
}

// === impl Namespace ===

impl Namespace {
    pub(super) async fn create(plane: ControlPlane, prefix: &str, labels: Value) -> Namespace {
        let namespace =
            json!({"metadata": {"generateName": format!("{prefix}-"), "labels": labels}});
        let namespace: v1::Namespace = serde_json::from_value(namespace).expect("it is one");
        let client = plane.client().await;
        let created = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
        let created: v1::Namespace = created.expect("a namespace can be made");
        let name = created.metadata.name.expect("what was created has a name");
        // Pods are refused before it is there.
        let accounts: Api<v1::ServiceAccount> = Api::namespaced(client, &name);
        until("a namespace has its ServiceAccount", async || accounts.get("default").await.is_ok())
            .await;
        Namespace { plane, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its cluster.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Its objects of a kind, as administrator.
    pub async fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.plane.client().await, &self.name)
    }

    /// What kubectl prints, in this namespace.
    ///
    /// # Panics
    /// kubectl fails.
    pub async fn kubectl(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        self.plane.kubectl(self.with_name(arguments)).await
    }

    /// Lets Kubernetes' garbage collector begin anew, with a list of all there is, and waits until it collects. While an API
    /// server restarts, one may lose track of objects whose owner changes, and leaves them for good (seen with Kubernetes 1.36).
    pub async fn collect_anew(&self) {
        let left = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "left",
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "ConfigMap", "name": "gone",
                    "uid": "00000000-0000-0000-0000-000000000000",
                }],
            },
        });
        self.plane.stop_component("kube-controller-manager").await;
        self.apply(&left).await.expect("it is a ConfigMap");
        self.plane.start_component("kube-controller-manager").await;
        let maps = self.api::<v1::ConfigMap>().await;
        until("what is left of others is collected", async || {
            maps.get_opt("left").await.is_ok_and(|left| left.is_none())
        })
        .await;
    }

    /// Applies objects in this namespace.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn apply(&self, objects: &Value) -> Result<String, String> {
        let apply = self.with_name(["apply", "--filename", "-"]);
        let applied = self.plane.try_kubectl(apply, &objects.to_string()).await;
        if applied.code == 0 { Ok(applied.output) } else { Err(applied.errors) }
    }

    fn with_name(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Vec<std::ffi::OsString> {
        let name = format!("--namespace={}", self.name).into();
        // In front: behind `--`, it would be an argument of what runs in a pod.
        std::iter::once(name).chain(arguments.into_iter().map(|a| a.as_ref().to_owned())).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.plane.keep_evidence(Some(&self.name));
            eprintln!("logs, events and objects of {} are in {}", self.name, kept.display());
        }
        // Nobody waits for its end.
        let mut delete = self.plane.command("kubectl").into_std();
        let delete = delete.args(["delete", "namespace", &self.name, "--wait=false"]);
        let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
