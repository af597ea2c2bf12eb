//! What there is to do, as metrics have it: models by their conditions, and those that wait for a reconcile. It is looked at
//! when somebody asks, and only a leader has any. No label is an object's name.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{kube_ext::Guarded, names::CONDITION_TYPES};

/// What a condition can be.
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// What there is to do. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Work(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Every model, while this replica leads.
    models: Mutex<Option<Store<Guarded>>>,
    /// Those that something changed for since their last reconcile began.
    waiting: Mutex<HashSet<Place>>,
}

/// A model's namespace and name.
type Place = (Option<String>, String);

// === impl Work ===

impl Work {
    /// This replica leads, and these are the models.
    pub(crate) fn begin(&self, models: Store<Guarded>) {
        *self.0.models.lock() = Some(models);
    }

    /// Something changed for a model.
    pub(crate) fn changed(&self, model: &ObjectRef<Guarded>) {
        self.0.waiting.lock().insert(place(model));
    }

    /// Its reconcile begins, or it is gone.
    pub(crate) fn taken<K: Lookup>(&self, model: &ObjectRef<K>) {
        self.0.waiting.lock().remove(&place(model));
    }

    /// This replica leads no more.
    pub(crate) fn end(&self) {
        *self.0.models.lock() = None;
        self.0.waiting.lock().clear();
    }

    fn counts(&self) -> BTreeMap<(&'static str, &'static str), i64> {
        let every =
            CONDITION_TYPES.into_iter().flat_map(|type_| STATUSES.map(|status| (type_, status)));
        let mut counts: BTreeMap<_, _> = every.map(|labels| (labels, 0)).collect();
        let models = self.0.models.lock().as_ref().map(Store::state).unwrap_or_default();
        for model in models {
            for type_ in CONDITION_TYPES {
                *counts.entry((type_, status_of(&model, type_))).or_default() += 1;
            }
        }
        counts
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl Collector for Work {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "Models, by what each of their conditions is; a model that was not looked at yet has Unknown ones. \
                    Of the leader alone";
        let mut family = encoder.encode_descriptor("models", help, None, MetricType::Gauge)?;
        for ((type_, status), count) in self.counts() {
            let labels = [("condition", type_), ("status", status)];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Models that something changed for and whose reconcile has not begun. Those that rest after a \
                    failure are not among them";
        let waiting =
            ConstGauge::new(i64::try_from(self.0.waiting.lock().len()).unwrap_or(i64::MAX));
        waiting.encode(encoder.encode_descriptor(
            "waiting_models",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}

// === free functions ===

fn place<K: Lookup>(model: &ObjectRef<K>) -> Place {
    (model.namespace.clone(), model.name.clone())
}

/// What a model's condition is. Of one that cannot be read, two are known.
fn status_of(model: &Guarded, type_: &str) -> &'static str {
    let Ok(model) = &model.0 else {
        return if ["Accepted", "Ready"].contains(&type_) { "False" } else { "Unknown" };
    };
    let mut conditions = model.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.find(|condition| condition.type_ == type_);
    let said = found.and_then(|found| STATUSES.into_iter().find(|status| *status == found.status));
    said.unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use embark_crds::v1alpha1::{EmbeddingModel, EmbeddingModelStatus};
    use kube::{
        core::DeserializeGuard,
        runtime::{reflector, watcher::Event},
    };
    use serde_json::json;

    use super::*;

    fn model(name: &str, ready: Option<&str>) -> Guarded {
        let text = include_str!("../../examples/quickstart.yaml");
        let manifest = embark_crds::manifest::read(text).unwrap().remove(0);
        let mut model = EmbeddingModel::new(name, manifest.spec);
        let condition = |status| {
            json!({"type": "Ready", "status": status, "reason": "X", "message": "",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        model.status = ready.map(|status| EmbeddingModelStatus {
            conditions: serde_json::from_value(json!([condition(status)])).unwrap(),
            ..EmbeddingModelStatus::default()
        });
        DeserializeGuard(Ok(model))
    }

    #[test]
    fn models_are_counted_by_their_conditions_as_long_as_this_replica_leads() {
        let work = Work::default();
        let (store, mut writer) = reflector::store();
        for one in [model("a", Some("True")), model("b", Some("False")), model("c", None)] {
            writer.apply_watcher_event(&Event::Apply(one));
        }
        let ready = |work: &Work| STATUSES.map(|status| work.counts()[&("Ready", status)]);
        assert_eq!(ready(&work), [0, 0, 0]);
        work.begin(store);
        assert_eq!(ready(&work), [1, 1, 1]);
        assert_eq!(work.counts()[&("Available", "Unknown")], 3);
        work.end();
        assert_eq!(ready(&work), [0, 0, 0]);
    }

    #[test]
    fn a_model_waits_once_however_often_it_changes() {
        let work = Work::default();
        let (one, other) = (ObjectRef::new("a").within("x"), ObjectRef::new("b").within("x"));
        for model in [&one, &one, &other] {
            work.changed(model);
        }
        assert_eq!(work.0.waiting.lock().len(), 2);
        work.taken(&one);
        assert_eq!(work.0.waiting.lock().len(), 1);
        work.end();
        assert!(work.0.waiting.lock().is_empty());
    }
}
