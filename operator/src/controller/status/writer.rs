//! Writes the status of models, and tells of what changed in it by events.

use std::{borrow::Cow, collections::HashMap};

use embark_crds::v1alpha1::{EmbeddingModel, EmbeddingModelStatus};
use k8s_openapi::{
    api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder},
};
use parking_lot::Mutex;
use serde_json::json;
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::{Verdict, is_same, merge};
use crate::kube_ext::{self, FIELD_MANAGER, Guarded, chain};

/// The conditions that people wait for.
const TOLD: [&str; 2] = ["Accepted", "Ready"];
/// The most bytes of an event's note.
const NOTE_BYTES: usize = 1024;
/// Models whose last status is remembered.
const REMEMBERED: usize = 10_000;

/// The statuses of models, as this operator writes them.
pub(in crate::controller) struct Statuses {
    client: Client,
    recorder: Recorder,
    /// What was written last, by the model's uid.
    written: Mutex<HashMap<String, Written>>,
    /// What was said of objects that cannot be read, by their uid.
    told: Mutex<HashMap<String, Told>>,
}

/// A status that the watch may not have told of yet.
struct Written {
    /// The model's version with it.
    version: u64,
    status: EmbeddingModelStatus,
}

/// What is said of an object of which nothing but its metadata can be read.
pub(in crate::controller) struct Conditions {
    pub(in crate::controller) object: ObjectReference,
    pub(in crate::controller) generation: Option<i64>,
    pub(in crate::controller) verdicts: Vec<Verdict>,
}

/// A generation, and what was said of it.
type Told = (Option<i64>, Vec<Verdict>);

// === impl Statuses ===

impl Statuses {
    pub(in crate::controller) fn new(client: Client) -> Self {
        let recorder = Recorder::new(client.clone(), FIELD_MANAGER.into());
        Statuses { client, recorder, written: Mutex::default(), told: Mutex::default() }
    }

    /// A model with the status that was written last, until the watch has told of that write.
    pub(in crate::controller) fn newest<'a>(
        &self,
        model: &'a EmbeddingModel,
    ) -> Cow<'a, EmbeddingModel> {
        let (uid, version) = (model.uid().unwrap_or_default(), version(model));
        let mut written = self.written.lock();
        match written.get(&uid) {
            Some(Written { version: later, status }) if version < Some(*later) => {
                Cow::Owned(EmbeddingModel { status: Some(status.clone()), ..model.clone() })
            }
            _ => {
                written.remove(&uid);
                Cow::Borrowed(model)
            }
        }
    }

    /// Writes a status, and tells of what changed in it; or does nothing when nothing did.
    ///
    /// # Errors
    /// The API server did not take it, and may later.
    pub(in crate::controller) async fn write(
        &self,
        model: &EmbeddingModel,
        status: EmbeddingModelStatus,
    ) -> kube::Result<()> {
        if model.status.as_ref().is_some_and(|old| is_same(old, &status)) {
            return Ok(());
        }
        let namespace = model.namespace().unwrap_or_default();
        let api = Api::<EmbeddingModel>::namespaced(self.client.clone(), &namespace);
        let body = json!({
            "apiVersion": EmbeddingModel::api_version(&()),
            "kind": EmbeddingModel::kind(&()),
            // Another of the name is not what was looked at.
            "metadata": { "name": model.name_any(), "uid": model.uid() },
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let (name, patch) = (model.name_any(), Patch::Apply(body));
        let writing = api.patch_status(&name, &parameters, &patch);
        let version = match writing.instrument(info_span!("status")).await {
            Ok(written) => version(&written),
            Err(error) => {
                nobody_takes(error)?;
                // As if it had been taken, until the object changes.
                version(model).map(|version| version + 1)
            }
        };
        self.announce(model, &status).await;
        if let Some(version) = version {
            let written = Written { version, status };
            remember(&mut self.written.lock(), model.uid(), written);
        }
        Ok(())
    }

    /// Writes the conditions alone of an object that cannot be read, once: what else its status holds cannot be read either.
    ///
    /// # Errors
    /// The API server did not take them, and may later.
    pub(in crate::controller) async fn write_conditions(
        &self,
        said: Conditions,
    ) -> kube::Result<()> {
        let Conditions { object, generation, verdicts } = said;
        let told = (generation, verdicts.clone());
        if object.uid.as_ref().is_some_and(|uid| self.told.lock().get(uid) == Some(&told)) {
            return Ok(());
        }
        for verdict in &verdicts {
            warn!(model = object.name, namespace = object.namespace, "{}", verdict.message);
        }
        let conditions = merge(&[], generation, verdicts, Timestamp::now());
        let status = json!({ "observedGeneration": generation, "conditions": conditions });
        let namespace = object.namespace.clone().unwrap_or_default();
        let api = Api::<Guarded>::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({ "status": status }));
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let name = object.name.clone().unwrap_or_default();
        if let Err(error) = api.patch_status(&name, &parameters, &patch).await {
            nobody_takes(error)?;
            for condition in conditions.iter().filter(|condition| condition.type_ == "Accepted") {
                self.publish(condition, &object).await;
            }
        }
        remember(&mut self.told.lock(), object.uid, told);
        Ok(())
    }

    /// An event for each of the conditions that people wait for, when it changed.
    async fn announce(&self, model: &EmbeddingModel, status: &EmbeddingModelStatus) {
        let before = model.status.iter().flat_map(|status| &status.conditions).collect::<Vec<_>>();
        for condition in &status.conditions {
            let is_same = |old: &&Condition| {
                let of =
                    |one: &Condition| (one.type_.clone(), one.status.clone(), one.reason.clone());
                of(old) == of(condition)
            };
            if !TOLD.contains(&condition.type_.as_str()) || before.iter().any(is_same) {
                continue;
            }
            info!(
                model = model.name_any(),
                namespace = model.namespace(),
                condition = condition.type_,
                status = condition.status,
                reason = condition.reason,
                "{}",
                condition.message
            );
            self.publish(condition, &model.object_ref(&())).await;
        }
    }

    async fn publish(&self, condition: &Condition, about: &ObjectReference) {
        if let Err(error) = self.recorder.publish(&event(condition), about).await {
            debug!("an event could not be written: {}", chain(&error));
        }
    }
}

// === free functions ===

/// An object's version. Versions of one kind's objects can be compared: Kubernetes says so since 1.35, and etcd's are numbers
/// that grow.
fn version(model: &EmbeddingModel) -> Option<u64> {
    model.metadata.resource_version.as_ref()?.parse().ok()
}

fn remember<T>(what: &mut HashMap<String, T>, uid: Option<String>, value: T) {
    // Those of models that are gone meanwhile are never taken out one by one.
    if what.len() >= REMEMBERED {
        what.clear();
    }
    what.insert(uid.unwrap_or_default(), value);
}

/// An API server takes no status of an object that breaks a rule which it did not have when the object was stored. To try
/// again would be of no use: what is to be said is said by events alone.
fn nobody_takes(error: kube::Error) -> kube::Result<()> {
    if kube_ext::is_invalid(&error) { Ok(()) } else { Err(error) }
}

/// A roll-out is no failure.
fn event(condition: &Condition) -> Event {
    let note = &condition.message[..condition.message.floor_char_boundary(NOTE_BYTES)];
    let is_failure = condition.status == "False" && condition.reason != "RollingOut";
    Event {
        type_: if is_failure { EventType::Warning } else { EventType::Normal },
        reason: condition.reason.clone(),
        note: Some(note.to_owned()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}
