//! The models that this process serves, by name, and how far each one is.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use embark_crds::{
    contract::{CachePolicy, Contract, Input, Prompt},
    digest::SpaceId,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    batch::Batcher,
    cache::Cache,
    error::{Error, ErrorKind},
    fetch::Fetcher,
    flight::Flights,
    memory::Taken,
    metrics::ModelMetrics,
    model::{load::State, preparer::Preparer},
    policy::LivePolicy,
};

/// The models of the process. Their names are fixed when it starts, though some may have no model before it can be read; what stands under a name may be replaced by another
/// version, at once for every call that begins then. Who took one goes on with it to the end.
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

/// One model: what it is, and what it computes with once it is loaded.
pub struct ServedModel {
    /// What was asked for when the process began; its policy may have been replaced since.
    pub contract: Contract,
    /// The cache policy in force.
    pub policy: Arc<LivePolicy>,
    /// The space of its vectors.
    pub space: SpaceId,
    /// The space and the digest of the model's file as every reply spells them.
    pub spelled: Spelled,
    /// Its metrics.
    pub metrics: ModelMetrics,
    progress: watch::Sender<Progress>,
    runtime: OnceLock<Arc<Runtime>>,
    /// Whether it stands under its name: what does not says nothing in gauges that have the name alone.
    is_named: AtomicBool,
    next: ArcSwapOption<Next>,
    /// Its part of the process's memory, until it is dropped.
    memory: Mutex<Option<Arc<Taken>>>,
}

/// What is to take a model's place.
pub enum Next {
    /// Nothing: what is asked for cannot be read, or is not for this process. A sentence.
    Refused(String),
    /// Another version, which is being loaded, or has failed to.
    Version(Arc<ServedModel>),
}

/// What a model's vectors are known by, in hexadecimal digits.
#[derive(Clone, Debug)]
pub struct Spelled {
    /// The space of its vectors.
    pub space_id: Bytes,
    /// The SHA-256 digest of its file.
    pub model_digest: Bytes,
}

/// How far a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub state: State,
    /// Why, in a sentence, when it failed.
    pub message: String,
}

/// What a loaded model computes with.
pub struct Runtime {
    /// URLs to images; `None`: the model takes none.
    pub fetcher: Option<Fetcher>,
    /// Inputs to rows.
    pub preparer: Preparer,
    /// Rows to vectors.
    pub batcher: Batcher,
    /// Vectors remembered.
    pub cache: Arc<Cache>,
    /// Vectors under way.
    pub flights: Arc<Flights>,
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
            before.is_named.store(false, Ordering::SeqCst);
            before.metrics.forget(&before.labels());
        }
        model.is_named.store(true, Ordering::SeqCst);
        model.metrics.identify(&model.labels());
        model.metrics.ready.set(model.runtime.get().is_some().into());
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

// === impl ServedModel ===

impl ServedModel {
    /// A model that is not loaded yet.
    pub fn new(contract: Contract, metrics: ModelMetrics) -> Self {
        let dimensions = contract.serving.output.dimensions.get() as usize;
        let policy = Arc::new(LivePolicy::new(contract.policy.clone(), dimensions));
        let model = Self::with(contract, (policy, metrics));
        model.metrics.identify(&model.labels());
        model.is_named.store(true, Ordering::SeqCst);
        model
    }

    /// Another version of a model, which is not loaded yet. It counts where that one does, and as long as their vectors are
    /// of one space it follows the same policy.
    pub fn version(&self, contract: Contract) -> Self {
        let dimensions = contract.serving.output.dimensions;
        let is_same = SpaceId::of(&contract.serving) == self.space
            && dimensions == self.contract.serving.output.dimensions;
        let policy = match is_same {
            true => Arc::clone(&self.policy),
            false => Arc::new(LivePolicy::new(contract.policy.clone(), dimensions.get() as usize)),
        };
        Self::with(contract, (policy, self.metrics.clone()))
    }

    fn with(contract: Contract, (policy, metrics): (Arc<LivePolicy>, ModelMetrics)) -> Self {
        let space = SpaceId::of(&contract.serving);
        let spelled = Spelled {
            space_id: space.to_string().into(),
            model_digest: contract.serving.model.sha256.to_string().into(),
        };
        let progress = Progress { state: State::Pending, message: String::new() };
        ServedModel {
            contract,
            policy,
            space,
            spelled,
            metrics,
            progress: watch::Sender::new(progress),
            runtime: OnceLock::new(),
            is_named: AtomicBool::new(false),
            next: ArcSwapOption::empty(),
            memory: Mutex::default(),
        }
    }

    /// The digest of its file and its space, as metrics have them.
    fn labels(&self) -> [String; 2] {
        [self.contract.serving.model.sha256.to_string(), self.space.to_string()]
    }

    /// What is to take its place, if anything is.
    pub fn next(&self) -> Option<Arc<Next>> {
        self.next.load_full()
    }

    /// Notes what is to take its place.
    pub fn set_next(&self, next: Option<Next>) {
        self.next.store(next.map(Arc::new));
    }

    /// Keeps its part of the process's memory, for as long as it is there.
    pub fn keep(&self, memory: Arc<Taken>) {
        *self.memory.lock() = Some(memory);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.contract.serving.name
    }

    /// What it takes.
    pub fn input(&self) -> &Input {
        &self.contract.serving.input
    }

    /// Its prompts, and the name of the one that stands when a request names none.
    pub fn prompts(&self) -> (&[Prompt], Option<&str>) {
        match self.input() {
            Input::Text(text) => (&text.prompts, text.default_prompt.as_deref()),
            _ => (&[], None),
        }
    }

    /// Counts the cache as its own, which it has shared with the version before.
    pub fn own_cache(&self) {
        if let Some(taken) = &*self.memory.lock() {
            taken.own_cache(&self.contract.serving);
        }
    }

    /// How far it is, and a wait for changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Notes how far it is. Ready and failed are the end: a load that was given up may still report stages after it.
    pub fn set_progress(&self, state: State, message: String) {
        let noted = self.progress.send_if_modified(|progress| {
            let open = !matches!(progress.state, State::Ready | State::Failed);
            if open {
                *progress = Progress { state, message };
            }
            open
        });
        if noted && self.is_named.load(Ordering::SeqCst) {
            self.metrics.ready.set((state == State::Ready).into());
        }
    }

    /// Brings gauges that nobody sets as they change up to date.
    pub fn refresh_gauges(&self) {
        if let Some(runtime) = self.runtime.get() {
            self.metrics.cache_status(&runtime.cache.status());
            self.metrics.batch.load(runtime.batcher.load(), runtime.flights.len());
        }
    }

    /// Puts another cache policy in force. Its epoch is raised first: no caller that goes by the new policy gets an entry
    /// that it purges, and who sees the policy's hash knows that the disk remembers its epoch.
    pub async fn follow(&self, policy: CachePolicy) {
        let epoch = policy.epoch;
        if let Some(runtime) = self.runtime.get() {
            self.raise_epoch(&runtime.cache, epoch).await;
        }
        self.policy.replace(policy);
        // Once more, for a cache that came into use meanwhile under the policy before.
        if let Some(runtime) = self.runtime.get() {
            self.raise_epoch(&runtime.cache, epoch).await;
        }
    }

    /// Makes a cache follow the policy's epoch, which may have been raised while the cache was being opened.
    pub async fn raise_policy_epoch(&self, cache: &Cache) {
        let epoch = self.policy.load().cache.epoch;
        self.raise_epoch(cache, epoch).await;
    }

    async fn raise_epoch(&self, cache: &Cache, epoch: u64) {
        if let Err(error) = cache.raise_epoch(epoch).await {
            tracing::warn!(model = self.name(), "{error}");
        }
    }

    /// What it computes with.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotReady`], with the reason.
    pub fn runtime(&self) -> Result<&Arc<Runtime>, Error> {
        self.runtime.get().ok_or_else(|| not_ready(self.name(), &self.progress.borrow()))
    }

    /// The input that stands for all that have its vector: itself, before the model is loaded.
    pub fn canonical(&self, input: crate::input::Input) -> crate::input::Input {
        match self.runtime.get() {
            Some(runtime) => runtime.preparer.canonical(input),
            None => input,
        }
    }

    /// Makes it answer. To be called once.
    pub fn start(&self, runtime: impl Into<Arc<Runtime>>) {
        let first = self.runtime.set(runtime.into()).is_ok();
        debug_assert!(first, "a model is started once");
        self.set_progress(State::Ready, String::new());
    }
}

// === free functions ===

fn not_ready(name: &str, progress: &Progress) -> Error {
    let why = match progress.message.as_str() {
        "" => progress.state.reported().as_str().to_owned(),
        message => message.to_owned(),
    };
    Error::new(ErrorKind::ModelNotReady, format!("model {name:?} is not ready: {why}"))
}

#[cfg(test)]
mod tests {
    use embark_crds::contract::Sha256;

    use super::*;
    use crate::{metrics::Metrics, model::test_support::tiny};

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

    #[test]
    fn a_version_follows_the_same_policy_where_its_vectors_are_of_the_same_space() {
        let before = ServedModel::new(tiny(), ModelMetrics::detached());
        let mut contract = tiny();
        contract.serving.batching.max_items = 1;
        assert!(Arc::ptr_eq(&before.version(contract.clone()).policy, &before.policy));
        contract.serving.model.sha256 = Sha256([7; 32]);
        assert!(!Arc::ptr_eq(&before.version(contract).policy, &before.policy));
    }

    #[test]
    fn what_does_not_stand_under_the_name_says_nothing_of_readiness() {
        let before = ServedModel::new(tiny(), ModelMetrics::detached());
        before.metrics.ready.set(1);
        before.version(tiny()).set_progress(State::Failed, "no".to_owned());
        assert_eq!(before.metrics.ready.get(), 1);
        before.set_progress(State::Failed, "no".to_owned());
        assert_eq!(before.metrics.ready.get(), 0);
    }
}
