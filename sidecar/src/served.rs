//! The models that this process serves, by name, and how far each one is.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use embark_crds::{
    contract::{CachePolicy, Contract, Input, Prompt},
    digest::SpaceId,
};
use tokio::sync::watch;

use crate::{
    batch::Batcher,
    cache::Cache,
    error::{Error, ErrorKind},
    flight::Flights,
    metrics::ModelMetrics,
    model::{load::State, preparer::Preparer},
    policy::LivePolicy,
};

/// The models of the process. Their set is fixed when it starts.
#[derive(Clone)]
pub struct ServedModels(Arc<BTreeMap<String, Arc<ServedModel>>>);

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
        ServedModels(Arc::new(models.into_iter().map(named).collect()))
    }

    /// The model of that name; an empty name means the only one.
    ///
    /// # Errors
    /// [`ErrorKind::ModelUnknown`].
    pub fn get(&self, name: &str) -> Result<&Arc<ServedModel>, Error> {
        match (name, self.0.len()) {
            ("", 1) => self.0.values().next(),
            _ => self.0.get(name),
        }
        .ok_or_else(|| {
            let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let allowed = format!("is not served here; served: {}", names.join(", "));
            Error::of_field(ErrorKind::ModelUnknown, "model", name, allowed)
        })
    }

    /// Every model, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServedModel>> {
        self.0.values()
    }
}

// === impl ServedModel ===

impl ServedModel {
    /// A model that is not loaded yet.
    pub fn new(contract: Contract, metrics: ModelMetrics) -> Self {
        let space = SpaceId::of(&contract.serving);
        let (space_id, model_digest) =
            (space.to_string(), contract.serving.model.sha256.to_string());
        metrics.identify(&model_digest, &space_id);
        let spelled = Spelled { space_id: space_id.into(), model_digest: model_digest.into() };
        let progress = Progress { state: State::Pending, message: String::new() };
        let (progress, runtime) = (watch::Sender::new(progress), OnceLock::new());
        let dimensions = contract.serving.output.dimensions.get() as usize;
        let policy = Arc::new(LivePolicy::new(contract.policy.clone(), dimensions));
        ServedModel { contract, policy, space, spelled, metrics, progress, runtime }
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
        if noted {
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
        self.runtime.get().ok_or_else(|| {
            let progress = self.progress.borrow();
            let why = match progress.message.as_str() {
                "" => progress.state.reported().as_str().to_owned(),
                message => message.to_owned(),
            };
            let sentence = format!("model {:?} is not ready: {why}", self.name());
            Error::new(ErrorKind::ModelNotReady, sentence)
        })
    }

    /// Makes it answer. To be called once.
    pub fn start(&self, runtime: Runtime) {
        let first = self.runtime.set(Arc::new(runtime)).is_ok();
        debug_assert!(first, "a model is started once");
        self.set_progress(State::Ready, String::new());
    }
}
