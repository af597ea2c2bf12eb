//! One model: what it is, how far it is, and what it computes with once it is loaded.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;
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

// === impl ServedModel ===

impl ServedModel {
    /// A model that is not loaded yet.
    pub fn new(contract: Contract, metrics: ModelMetrics) -> Self {
        let dimensions = contract.serving.output.dimensions.get() as usize;
        let policy = Arc::new(LivePolicy::new(contract.policy.clone(), dimensions));
        let model = Self::with(contract, (policy, metrics));
        model.take_name();
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

    /// Stands under its name from now on, and says so in the gauges of it.
    pub(super) fn take_name(&self) {
        self.is_named.store(true, Ordering::SeqCst);
        self.metrics.identify(&self.labels());
        self.metrics.ready.set(self.runtime.get().is_some().into());
    }

    /// Stands under its name no more.
    pub(super) fn leave_name(&self) {
        self.is_named.store(false, Ordering::SeqCst);
        self.metrics.forget(&self.labels());
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
            let saturation = runtime.batcher.load().saturation();
            self.metrics.batch.load(saturation, runtime.flights.len());
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

pub(super) fn not_ready(name: &str, progress: &Progress) -> Error {
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
    use crate::model::test_support::tiny;

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
