//! The models that pods may ask for: kept by a watch of every replica's own, and asked for once more when one is not known.

use std::sync::Arc;

use embark_crds::v1alpha1::EmbeddingModelSpec;
use futures_util::{StreamExt as _, future::try_join_all};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::task::JoinHandle;

use super::refusal::Refusal;
use crate::{
    kube_ext::{Guarded, chain},
    names::MODELS,
    watches::Scope,
};

/// The most names of other models that a sentence has.
const NAMED: usize = 20;

/// Every model of the cluster.
#[derive(Clone)]
pub(super) struct Models {
    client: Client,
    store: Store<Guarded>,
}

/// A model that a pod asks for.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Its name.
    pub(super) name: String,
    /// What is to be mounted for it; `None`: what is stored cannot be read, and nothing but its contract is.
    pub(super) spec: Option<EmbeddingModelSpec>,
}

// === impl Models ===

impl Models {
    /// Watches every model, until the task is aborted.
    pub(super) fn watch(client: &Client, scope: &Scope) -> (Self, JoinHandle<()>) {
        let (store, writer) = reflector::store();
        let models = scope.watch(client, &watcher::Config::default(), store.clone());
        let changes = models.modify(slim);
        let mut is_failing = false;
        let watching = reflector(writer, changes).for_each(move |change| {
            match change {
                Ok(_) => is_failing = false,
                // Once, until it works again: the first try may come before the definition.
                Err(error) if !std::mem::replace(&mut is_failing, true) => {
                    tracing::warn!(
                        "the watch of models failed and is tried again: {}",
                        chain(&error)
                    );
                }
                Err(_) => {}
            }
            std::future::ready(())
        });
        (Models { client: client.clone(), store }, tokio::spawn(watching))
    }

    /// The models of a namespace by their names.
    ///
    /// # Errors
    /// One is not there, by the API server's own word; or that cannot be had.
    pub(super) async fn find(
        &self,
        namespace: &str,
        names: &[String],
    ) -> Result<Vec<Model>, Refusal> {
        try_join_all(names.iter().map(|name| self.one(namespace, name))).await
    }

    async fn one(&self, namespace: &str, name: &str) -> Result<Model, Refusal> {
        let known = self.store.get(&ObjectRef::new(name).within(namespace));
        // A model that was applied together with the pod may not have been heard of yet.
        let model = match known {
            Some(model) => Some(model),
            None => self.ask(namespace, name).await?.map(Arc::new),
        };
        match model {
            Some(model) => {
                let spec = model.0.as_ref().ok().map(|model| model.spec.clone());
                Ok(Model { name: name.to_owned(), spec })
            }
            None => Err(self.unknown(namespace, name)),
        }
    }

    async fn ask(&self, namespace: &str, name: &str) -> Result<Option<Guarded>, Refusal> {
        let api = Api::<Guarded>::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| {
            Refusal::failed(format!(
                "EmbeddingModel {name} of namespace {namespace} cannot be asked for: {}",
                chain(&error)
            ))
        })
    }

    fn unknown(&self, namespace: &str, name: &str) -> Refusal {
        let in_namespace = |model: &Guarded| model.namespace().as_deref() == Some(namespace);
        let mut names: Vec<String> =
            self.store.state_filter(in_namespace).iter().map(|model| model.name_any()).collect();
        names.sort();
        let there = match names.len() {
            0 => "has none".to_owned(),
            many if many > NAMED => {
                format!("has {} and {} more", names[..NAMED].join(", "), many - NAMED)
            }
            _ => format!("has {}", names.join(", ")),
        };
        Refusal::forbidden(format!(
            "metadata.annotations[{}]: there is no EmbeddingModel {name:?} in namespace {namespace}, which {there}",
            MODELS
        ))
    }
}

// === free functions ===

/// Keeps of a model what is looked at.
fn slim(model: &mut Guarded) {
    if let Ok(model) = &mut model.0 {
        model.metadata.managed_fields = None;
        model.metadata.annotations = None;
        model.status = None;
    }
}
