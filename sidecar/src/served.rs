//! The models that this process serves, by name.

mod model;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::model::not_ready;
pub use self::model::{Next, Progress, Runtime, ServedModel, Spelled};
use crate::error::{Error, ErrorKind};

/// The models of the process. Their names are fixed when it starts, though some may have no model before it can be read; what
/// stands under a name may be replaced by another version, at once for every call that begins then. Who took one goes on with
/// it to the end.
#[derive(Clone)]
pub struct ServedModels(Arc<Set>);

struct Set {
    models: ArcSwap<Named>,
    changed: watch::Sender<()>,
}

/// What stands under the names.
#[derive(Clone, Default)]
struct Named {
    models: BTreeMap<String, Arc<ServedModel>>,
    /// What is mounted and cannot be read yet.
    awaited: BTreeMap<String, Awaited>,
}

/// A name that has no model yet: what it is to be cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The name.
    pub name: String,
    /// How far it is, and why.
    pub progress: Progress,
}

// === impl ServedModels ===

impl ServedModels {
    /// These models.
    pub fn new(models: impl IntoIterator<Item = ServedModel>) -> Self {
        let named = |model: ServedModel| (model.name().to_owned(), Arc::new(model));
        let models = models.into_iter().map(named).collect();
        let models = ArcSwap::from_pointee(Named { models, awaited: BTreeMap::new() });
        ServedModels(Arc::new(Set { models, changed: watch::Sender::new(()) }))
    }

    /// The model of that name; an empty name means the only one.
    ///
    /// # Errors
    /// [`ErrorKind::ModelUnknown`].
    pub fn get(&self, name: &str) -> Result<Arc<ServedModel>, Error> {
        let named = self.0.models.load();
        let Named { models, awaited } = &**named;
        let only = models.keys().chain(awaited.keys()).next();
        let wanted = match (name, only) {
            ("", Some(only)) if models.len() + awaited.len() == 1 => only,
            _ => name,
        };
        if let Some(model) = models.get(wanted) {
            return Ok(Arc::clone(model));
        }
        Err(match awaited.get(wanted) {
            Some(awaited) => awaited.error(),
            None => {
                let names: Vec<&str> =
                    models.keys().chain(awaited.keys()).map(String::as_str).collect();
                let allowed = format!("is not served here; served: {}", names.join(", "));
                Error::of_field(ErrorKind::ModelUnknown, "model", name, allowed)
            }
        })
    }

    /// Every name that has no model yet.
    pub fn awaited(&self) -> Vec<Awaited> {
        self.0.models.load().awaited.values().cloned().collect()
    }

    /// Notes why a name has no model yet. It has one for good once it was put there.
    pub fn wait_for(&self, awaited: &Awaited) {
        self.0.models.rcu(|named| {
            let mut named = Named::clone(named);
            if !named.models.contains_key(&awaited.name) {
                named.awaited.insert(awaited.name.clone(), awaited.clone());
            }
            named
        });
        self.0.changed.send_replace(());
    }

    /// Every model, by name.
    pub fn iter(&self) -> impl Iterator<Item = Arc<ServedModel>> + use<> {
        let models: Vec<_> = self.0.models.load().models.values().cloned().collect();
        models.into_iter()
    }

    /// Puts a version in the place of the one that has its name. Calls that begin from now on are answered by it.
    pub fn put(&self, model: &Arc<ServedModel>) {
        let before = self.0.models.rcu(|named| {
            let mut named = Named::clone(named);
            named.awaited.remove(model.name());
            named.models.insert(model.name().to_owned(), Arc::clone(model));
            named
        });
        if let Some(before) = before.models.get(model.name()) {
            before.leave_name();
        }
        model.take_name();
        self.0.changed.send_replace(());
    }

    /// A wait for another version under some name.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

// === impl Awaited ===

impl Awaited {
    /// What who asks for it is told.
    pub fn error(&self) -> Error {
        not_ready(&self.name, &self.progress)
    }
}

#[cfg(test)]
mod tests {
    use embark_crds::contract::Sha256;

    use super::*;
    use crate::{
        metrics::{Metrics, ModelMetrics},
        model::{load::State, test_support::tiny},
    };

    #[test]
    fn who_took_a_version_keeps_it_when_another_is_put_in_its_place() {
        let metrics = Metrics::default();
        let models = ServedModels::new([ServedModel::new(tiny(), metrics.model("tiny"))]);
        let before = models.get("tiny").unwrap();
        let mut contract = tiny();
        contract.serving.model.sha256 = Sha256([7; 32]);
        let after = Arc::new(before.version(contract));
        let changed = models.changes();
        let info = || {
            let text = metrics.encode();
            let lines = text.lines().filter(|line| line.starts_with("embark_model_info{"));
            lines.map(str::to_owned).collect::<Vec<String>>()
        };
        assert!(info().len() == 1 && info()[0].contains(&before.space.to_string()), "{:?}", info());
        models.put(&after);
        assert!(changed.has_changed().unwrap());
        assert!(Arc::ptr_eq(&models.get("").unwrap(), &after));
        assert_eq!(before.spelled.space_id, before.space.to_string());
        assert!(info().len() == 1 && info()[0].contains(&after.space.to_string()), "{:?}", info());
    }

    #[test]
    fn a_name_without_a_model_is_not_ready_until_one_is_put_there() {
        let models = ServedModels::new([]);
        let progress = Progress { state: State::Pending, message: "it has none of v1.json".into() };
        models.wait_for(&Awaited { name: "tiny".to_owned(), progress });
        for name in ["tiny", ""] {
            let error = models.get(name).err().unwrap();
            assert_eq!(error.kind, ErrorKind::ModelNotReady);
            assert!(error.message.contains("none of v1.json"), "{}", error.message);
        }
        assert_eq!(models.get("other").err().unwrap().kind, ErrorKind::ModelUnknown);
        let model = Arc::new(ServedModel::new(tiny(), ModelMetrics::detached()));
        models.put(&model);
        assert!(models.awaited().is_empty() && models.get("").is_ok());
    }
}
