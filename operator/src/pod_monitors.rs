//! PodMonitors, a kind that a cluster has or has not, and may come to have: its definition is watched, and the objects only
//! as long as there is one.

use std::borrow::Cow;

use futures_util::{
    Stream, StreamExt as _,
    future::ready,
    stream::{self, BoxStream},
};
use k8s_openapi::{
    NamespaceResourceScope, api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource,
    core::ObjectMeta,
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::Store,
        watcher,
        watcher::{Event, watch_object},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    kube_ext::chain,
    names,
    triggers::{Triggers, model_ref, triggers_of},
    watches::{Events, Scope},
};

const GROUP: &str = "monitoring.coreos.com";
const VERSION: &str = "v1";
const KIND: &str = "PodMonitor";
const PLURAL: &str = "podmonitors";
/// The name of the kind's definition.
const DEFINITION: &str = "podmonitors.monitoring.coreos.com";

/// What a Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodMonitor {
    pub(crate) metadata: ObjectMeta,
    /// Of another project, which alone knows all that may stand in it.
    #[serde(default)]
    pub(crate) spec: Value,
}

/// Every PodMonitor of ours, and whether there can be any.
pub(crate) struct PodMonitors {
    store: Store<PodMonitor>,
    is_served: watch::Receiver<bool>,
}

// === impl PodMonitor ===

impl Resource for PodMonitor {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

// === impl PodMonitors ===

impl PodMonitors {
    /// Watches them, and their definition.
    pub(crate) fn watch(client: &Client, scope: &Scope, triggers: &mut Vec<Triggers>) -> Self {
        let (store, writer) = reflector::store();
        let (tell, is_served) = watch::channel(false);
        let objects = {
            let (client, scope, store) = (client.clone(), scope.clone(), store.clone());
            let ours = watcher::Config::default().labels(names::OURS);
            move || scope.watch(&client, &ours, store.clone())
        };
        let events = while_served(objects, definition(client), tell);
        triggers.push(triggers_of(reflector(writer, events)));
        PodMonitors { store, is_served }
    }

    /// Every model that has a Deployment, each time that the cluster comes to have the kind.
    pub(crate) fn appearances(&self, deployments: &Store<Deployment>) -> Triggers {
        let deployments = deployments.clone();
        let appeared = stream::unfold(self.is_served.clone(), |mut is_served| async move {
            is_served.changed().await.ok()?;
            is_served.wait_for(|is_served| *is_served).await.ok()?;
            Some(((), is_served))
        });
        let models = appeared.flat_map(move |()| {
            let models = deployments.state();
            stream::iter(models.into_iter().filter_map(|deployment| model_ref(&*deployment)))
        });
        models.boxed()
    }

    /// Every one of ours.
    pub(crate) fn store(&self) -> &Store<PodMonitor> {
        &self.store
    }

    /// Whether the cluster has the kind.
    pub(crate) fn is_served(&self) -> bool {
        *self.is_served.borrow()
    }
}

// === free functions ===

/// Whether the cluster serves the kind, each time that it is told of.
fn definition(client: &Client) -> BoxStream<'static, bool> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let mut is_failing = false;
    let mut is_known = false;
    let told = watch_object(definitions, DEFINITION).default_backoff();
    told.filter_map(move |definition| {
        let is_served = match definition {
            Ok(definition) => {
                is_failing = false;
                Some(definition.as_ref().is_some_and(is_served))
            }
            Err(error) => {
                // Once, until it works again.
                if !std::mem::replace(&mut is_failing, true) {
                    let why = chain(&error);
                    tracing::warn!("whether there are PodMonitors cannot be told: {why}");
                }
                // What is not known of at all holds up nobody.
                (!is_known).then_some(false)
            }
        };
        is_known |= is_served.is_some();
        ready(is_served)
    })
    .boxed()
}

fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_established = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True");
    let mut versions = definition.spec.versions.iter();
    is_established && versions.any(|version| version.name == VERSION && version.served)
}

/// What a watch tells while there is the kind; that there is none, whenever there is not, or none may be read.
fn while_served(
    objects: impl Fn() -> Events<PodMonitor> + Clone + Send + 'static,
    definition: BoxStream<'static, bool>,
    tell: watch::Sender<bool>,
) -> impl Stream<Item = watcher::Result<Event<PodMonitor>>> + Send + 'static {
    let nothing: Events<PodMonitor> = stream::pending().boxed();
    // Whether they were listed since there is the kind.
    let begin = (definition, nothing, false);
    let told = stream::unfold(begin, move |(mut definition, mut events, mut is_listed)| {
        let (objects, tell) = (objects.clone(), tell.clone());
        async move {
            loop {
                tokio::select! {
                    Some(is_served) = definition.next() => {
                        let is_new = is_news(&tell, is_served);
                        if is_new && is_served {
                            (events, is_listed) = (objects(), false);
                        } else if !is_served {
                            return Some((none(), (definition, stream::pending().boxed(), false)));
                        }
                    }
                    Some(event) = events.next() => {
                        let mut told = vec![event];
                        match told[0] {
                            // Without the right to read them, models are served all the same.
                            Err(watcher::Error::InitialListFailed(_))
                                if !is_listed && is_news(&tell, false) =>
                            {
                                told.extend(none());
                            }
                            Ok(Event::InitDone) => {
                                is_listed = true;
                                is_news(&tell, true);
                            }
                            _ => {}
                        }
                        return Some((told, (definition, events, is_listed)));
                    }
                    else => return None,
                }
            }
        }
    });
    told.flat_map(stream::iter)
}

fn none() -> Vec<watcher::Result<Event<PodMonitor>>> {
    vec![Ok(Event::Init), Ok(Event::InitDone)]
}

/// Tells whether there are PodMonitors, and gives whether that is something new.
fn is_news(tell: &watch::Sender<bool>, is_served: bool) -> bool {
    tell.send_if_modified(|told| std::mem::replace(told, is_served) != is_served)
}
