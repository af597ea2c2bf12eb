//! Brings models up, each in a task of its own, and takes them down.

use std::{
    io,
    iter::successors,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embark_crds::contract::files;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, info, warn};

use crate::{
    batch::{Batcher, BatcherConfig},
    cache::{Cache, CacheConfig},
    clock::Clock,
    config::ModelConfig,
    model::{
        artifact::ArtifactStore,
        load as model,
        load::{LoadError, LoadedModel, State},
    },
    served::{Runtime, ServedModel, ServedModels},
};

/// How long a model whose source failed rests first. It doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest that it rests.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Load(LoadError),
    #[error("the workers' threads did not start: {0}")]
    Workers(io::Error),
    #[error("measuring the model ended early")]
    WarmUp,
}

/// What every load shares.
#[derive(Clone)]
pub(super) struct Loader {
    artifacts: Arc<ArtifactStore>,
    caches: PathBuf,
    workers: NonZeroUsize,
    clock: Arc<dyn Clock>,
}

// === impl Loader ===

impl Loader {
    pub(super) fn new(data_dir: &Path, workers: NonZeroUsize, clock: Arc<dyn Clock>) -> Self {
        let artifacts = Arc::new(ArtifactStore::new(&data_dir.join(files::ARTIFACTS_DIR)));
        Loader { artifacts, caches: data_dir.join(files::CACHE_DIR), workers, clock }
    }

    /// Brings a model and its cache up.
    async fn load(&self, served: &Arc<ServedModel>, base: &Path) -> Result<Runtime, StartError> {
        let (cache, loaded) = tokio::join!(self.cache(served), self.model(served, base));
        let LoadedModel { preparer, engine } = loaded.map_err(StartError::Load)?;
        let config = BatcherConfig {
            workers: self.workers,
            batching: served.contract.serving.batching,
            longest: preparer.longest(),
        };
        let metrics = served.metrics.clone();
        let start = move || {
            let batcher = Batcher::start(engine, config, |length| preparer.sample(length), metrics);
            (batcher, preparer)
        };
        let (batcher, preparer) = spawn_blocking(start).await.map_err(|_| StartError::WarmUp)?;
        let batcher = batcher.map_err(StartError::Workers)?;
        Ok(Runtime { preparer, batcher, cache, flights: Arc::default() })
    }

    async fn cache(&self, served: &ServedModel) -> Arc<Cache> {
        let serving = &served.contract.serving;
        let config = CacheConfig {
            folder: self.caches.join(&serving.name),
            storage: serving.cache,
            dimensions: serving.output.dimensions.get() as usize,
        };
        let (policy, clock) = (Arc::clone(&served.policy), Arc::clone(&self.clock));
        Cache::open(config, policy, clock, served.metrics.cache.clone()).await
    }

    /// Loads a model, again and again while only its source fails: a source may be away for a while, as at the start of
    /// a whole cluster.
    async fn model(
        &self,
        served: &Arc<ServedModel>,
        base: &Path,
    ) -> Result<LoadedModel, LoadError> {
        let mut waits = successors(Some(FIRST_WAIT), |wait| Some((*wait * 2).min(LONGEST_WAIT)));
        let mut last_failure = String::new();
        loop {
            let (progress, why) = (Arc::clone(served), last_failure);
            let on_state = move |state: State| match state {
                // The first says nothing new, and the others are said below: a model is ready when it answers, and
                // failed when it can be said why.
                State::Pending | State::Ready | State::Failed => {}
                State::Loading | State::Warming => progress.set_progress(state, String::new()),
                state => progress.set_progress(state, why.clone()),
            };
            let serving = &served.contract.serving;
            let error = match model::load(serving, &self.artifacts, base, on_state).await {
                Err(error) if error.is_transient() => error,
                outcome => return outcome,
            };
            let wait = waits.next().unwrap_or(LONGEST_WAIT);
            warn!(model = served.name(), "not loaded yet, tried again in {wait:?}: {error}");
            last_failure = error.to_string();
            served.set_progress(State::Pending, last_failure.clone());
            sleep_until(Instant::now() + wait).await;
        }
    }
}

/// Starts to load every model.
pub(super) fn start(
    loader: Loader,
    configs: Vec<ModelConfig>,
    models: &ServedModels,
) -> Vec<JoinHandle<()>> {
    let one = |config: ModelConfig| {
        let served = models.get(&config.contract.serving.name).ok().map(Arc::clone)?;
        if !config.unsupported.is_empty() {
            let sentences: Vec<String> =
                config.unsupported.iter().map(ToString::to_string).collect();
            fail(&served, &sentences.join("; "));
            return None;
        }
        let loader = loader.clone();
        Some(tokio::spawn(async move { load(&loader, &served, &config.base).await }))
    };
    configs.into_iter().filter_map(one).collect()
}

/// Computes what waits and writes the cache, each within `grace`.
pub(super) async fn close(model: &Arc<ServedModel>, grace: Duration) {
    let Ok(runtime) = model.runtime().map(Arc::clone) else {
        return;
    };
    let computing = Arc::clone(&runtime);
    let computed = spawn_blocking(move || computing.batcher.close());
    if timeout(grace, computed).await.is_err() {
        warn!(model = model.name(), "what waits was not computed within {grace:?}");
    }
    if !runtime.cache.close(grace).await {
        warn!(model = model.name(), "the cache was not written within {grace:?}");
    }
}

async fn load(loader: &Loader, served: &Arc<ServedModel>, base: &Path) {
    let started = Instant::now();
    match loader.load(served, base).await {
        Ok(runtime) => {
            // Before and after: the policy may be replaced at any time.
            served.raise_policy_epoch(&runtime.cache).await;
            let cache = Arc::clone(&runtime.cache);
            served.start(runtime);
            served.raise_policy_epoch(&cache).await;
            let took = format!("{:.2?}", started.elapsed());
            info!(model = served.name(), took, "ready");
        }
        Err(error) => fail(served, &error.to_string()),
    }
}

fn fail(served: &ServedModel, sentence: &str) {
    error!(model = served.name(), "failed to load: {sentence}");
    served.set_progress(State::Failed, sentence.to_owned());
}
