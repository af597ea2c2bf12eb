//! Brings models up, each in a task of its own, and takes them down.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

use crate::{
    batch::Batcher,
    cache::{Cache, CacheConfig},
    clock::Clock,
    config::ModelConfig,
    model::{artifact::ArtifactStore, load as model, load::State},
    served::{Runtime, ServedModel, ServedModels},
};

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
        let artifacts = Arc::new(ArtifactStore::new(&data_dir.join("artifacts")));
        Loader { artifacts, caches: data_dir.join("cache"), workers, clock }
    }

    async fn load(&self, served: &Arc<ServedModel>, base: &Path) -> Result<Runtime, String> {
        let serving = &served.contract.serving;
        let progress = Arc::clone(served);
        let on_state = move |state: State| match state {
            // A model is ready when it answers, and failed when it can be said why: both are said below.
            State::Ready | State::Failed => {}
            state => progress.set_progress(state, String::new()),
        };
        let cache = Cache::open(
            CacheConfig {
                folder: self.caches.join(&serving.name),
                storage: serving.cache,
                dimensions: serving.output.dimensions.get() as usize,
            },
            served.contract.policy.clone(),
            Arc::clone(&self.clock),
            served.metrics.cache.clone(),
        );
        let loaded = model::load(serving, &self.artifacts, base, on_state);
        let (cache, loaded) = tokio::join!(cache, loaded);
        let loaded = loaded.map_err(|error| error.to_string())?;
        let metrics = served.metrics.clone();
        let batcher = Batcher::start(loaded.engine, self.workers, &serving.batching, metrics)
            .map_err(|error| format!("no threads for the workers: {error}"))?;
        Ok(Runtime { tokenizer: loaded.tokenizer, batcher, cache })
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
            served.start(runtime);
            let took = format!("{:.2?}", started.elapsed());
            info!(model = served.name(), took, "ready");
        }
        Err(sentence) => {
            error!(model = served.name(), "failed to load: {sentence}");
            served.set_progress(State::Failed, sentence);
        }
    }
}
