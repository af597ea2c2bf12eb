//! What the cluster holds of the models' children and pods, kept by watches, so that a reconcile asks the API server for
//! nothing that it was told already.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::select_all};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Pod, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::{ObjectRef, Store, store::WriterDropped},
        watcher,
    },
};
use tokio::sync::OnceCell;

use crate::{
    kube_ext::Object,
    names,
    pod_monitors::{PodMonitor, PodMonitors},
    slim,
    triggers::{Triggers, triggers_of},
    watches::Scope,
};

/// A kind whose objects are kept.
pub(crate) trait Kept: Object {
    /// The objects that are kept of it.
    fn store(children: &Children) -> &Store<Self>;
}

macro_rules! children {
    ($($field:ident: $kind:ident, $slim:path;)+) => {
        /// Every object that carries our label, by kind.
        pub(crate) struct Children {
            $($field: Store<$kind>,)+
            pod_monitors: PodMonitors,
            listed: OnceCell<()>,
        }

        $(impl Kept for $kind {
            fn store(children: &Children) -> &Store<Self> {
                &children.$field
            }
        })+

        impl Children {
            /// Watches every kind. What they say of an object is known only while the triggers are polled, whose items are
            /// the models that a change is about.
            pub(crate) fn watch(client: &Client, scope: &Scope) -> (Self, Triggers) {
                let mut triggers = Vec::new();
                $(let $field = watch(client, scope, (&mut triggers, $slim));)+
                let pod_monitors = PodMonitors::watch(client, scope, &mut triggers);
                let listed = OnceCell::new();
                let children = Children { $($field,)+ pod_monitors, listed };
                triggers.push(children.pod_monitors.appearances(Deployment::store(&children)));
                (children, select_all(triggers).boxed())
            }

            /// Waits until each kind was listed once.
            pub(crate) async fn ready(&self) -> Result<(), WriterDropped> {
                // A store wakes only the last of several tasks that wait for it, so that one waits for all of them.
                let listed = self.listed.get_or_try_init(async || {
                    $(self.$field.wait_until_ready().await?;)+
                    self.pod_monitors.store().wait_until_ready().await?;
                    Ok(())
                });
                listed.await.copied()
            }
        }
    };
}

children! {
    service_accounts: ServiceAccount, slim::whole;
    config_maps: ConfigMap, slim::config_map;
    services: Service, slim::whole;
    deployments: Deployment, slim::whole;
    autoscalers: HorizontalPodAutoscaler, slim::whole;
    disruption_budgets: PodDisruptionBudget, slim::whole;
    network_policies: NetworkPolicy, slim::whole;
    pods: Pod, slim::pod;
}

// === impl PodMonitor ===

impl Kept for PodMonitor {
    fn store(children: &Children) -> &Store<Self> {
        children.pod_monitors.store()
    }
}

// === impl Children ===

impl Children {
    /// Whether the cluster has PodMonitors.
    pub(crate) fn has_pod_monitors(&self) -> bool {
        self.pod_monitors.is_served()
    }

    /// An object by name.
    pub(crate) fn get<K: Kept>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        K::store(self).get(&ObjectRef::new(name).within(namespace))
    }

    /// Every object of a kind.
    pub(crate) fn all<K: Kept>(&self) -> Vec<Arc<K>> {
        K::store(self).state()
    }

    /// The objects of one model that are not on their way out, by name.
    pub(crate) fn of_model<K: Kept>(&self, namespace: &str, model: &str) -> Vec<Arc<K>> {
        let mut objects = K::store(self).state_filter(|object: &K| {
            object.meta().namespace.as_deref() == Some(namespace)
                && names::model_of(object.labels()) == Some(model)
                && object.meta().deletion_timestamp.is_none()
        });
        objects.sort_by_key(|object| object.name_any());
        objects
    }
}

// === free functions ===

fn watch<K: Object>(
    client: &Client,
    scope: &Scope,
    (triggers, slim): (&mut Vec<Triggers>, fn(&mut K)),
) -> Store<K> {
    let (store, writer) = reflector::store();
    let ours = watcher::Config::default().labels(names::OURS);
    let events = scope.watch(client, &ours, store.clone()).modify(slim);
    triggers.push(triggers_of(reflector(writer, events)));
    store
}
