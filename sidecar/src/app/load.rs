//! Brings models up, each in a task of its own.

use std::{
    io,
    iter::successors,
    num::NonZeroUsize,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embark_crds::contract::{Input, ServingConfig, files};
use futures_util::FutureExt as _;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, info, warn};

use super::retire::{Retiring, take_down};
use crate::{
    batch::{Batcher, BatcherConfig},
    cache::{self, Cache, CacheConfig},
    clock::Clock,
    fetch::{Fetcher, FetcherError, Gate, system_lookup},
    memory::{self, Account, Needs, Taken},
    model::{
        artifact::{ArtifactStore, FetchCause},
        load as model,
        load::{LoadError, LoadedModel, State},
        refusal::Refusal,
        stages::Stages,
    },
    self_test,
    served::{Runtime, ServedModel, ServedModels},
};

/// How long a model whose source failed rests first. It doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest that it rests.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long caches of other versions may take to be deleted before a start goes on.
const DISCARD_LIMIT: Duration = Duration::from_secs(3);

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Load(LoadError),
    #[error(transparent)]
    Refused(Refusal),
    #[error("the workers' threads did not start: {0}")]
    Workers(io::Error),
    #[error(transparent)]
    Fetcher(FetcherError),
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
    memory: Account,
    pub(super) models: ServedModels,
    pub(super) retiring: Retiring,
}

/// A version that is to be loaded.
pub(super) struct Wanted {
    /// The version.
    pub(super) served: Arc<ServedModel>,
    /// The folder that relative `file://` paths start from.
    pub(super) base: PathBuf,
    /// The version that answers until this one can; `None`: this one stands under its name already.
    pub(super) before: Option<Arc<ServedModel>>,
}

/// A load under way. Dropping it gives it up.
pub(super) struct Load(JoinHandle<()>);

// === impl Loader ===

impl Loader {
    /// A loader of `models` that keeps files in a folder, and may use as much memory as the process.
    pub(super) fn new(
        data_dir: &Path,
        workers: NonZeroUsize,
        clock: Arc<dyn Clock>,
        models: ServedModels,
    ) -> Self {
        let artifacts = Arc::new(ArtifactStore::new(&data_dir.join(files::ARTIFACTS_DIR)));
        let (caches, memory) = (data_dir.join(files::CACHE_DIR), Account::of(memory::limit()));
        Loader { artifacts, caches, workers, clock, memory, models, retiring: Retiring::default() }
    }

    /// Starts to load a version, in a task of its own, once the one that was asked for before is given up.
    pub(super) fn start(&self, wanted: Wanted, given_up: Option<Load>) -> Load {
        let loader = self.clone();
        Load(tokio::spawn(async move {
            if let Some(load) = given_up {
                load.end().await;
            }
            let (served, before) = (Arc::clone(&wanted.served), wanted.before.clone());
            // Whatever happens to one model is its own affair.
            let loading = AssertUnwindSafe(loader.bring_up(wanted)).catch_unwind();
            if loading.await.is_err() {
                fail(
                    (&served, before.as_deref()),
                    "loading it ended by a panic, which the log has",
                );
            }
        }))
    }

    async fn bring_up(&self, mut wanted: Wanted) {
        if wanted.before.is_some() {
            // What is being taken down has memory, and maybe the very cache that this one is to open.
            self.retiring.none().await;
            wanted.before = self.models.get(wanted.served.name()).ok();
        }
        let started = Instant::now();
        let (runtime, stages) = match self.load(&wanted).await {
            Ok(loaded) => loaded,
            Err(error) => {
                return fail((&wanted.served, wanted.before.as_deref()), &error.to_string());
            }
        };
        let Wanted { served, before, .. } = wanted;
        // Before and after: the policy may be replaced at any time.
        served.raise_policy_epoch(&runtime.cache).await;
        let cache = Arc::clone(&runtime.cache);
        served.start(runtime);
        let took = format!("{:.2?}", started.elapsed());
        let Some(before) = before else {
            served.raise_policy_epoch(&cache).await;
            tell("ready", (&served, &took), stages);
            return;
        };
        if before.contract.serving.input != served.contract.serving.input {
            // Bounds of inputs are not in the space, and what failed by them may not fail any more.
            cache.forget_failures();
        }
        self.models.put(&served);
        before.set_next(None);
        tell("took over from the version before", (&served, &took), stages);
        // It outlives this load, which is given up when yet another version is asked for.
        let (loader, after) = (self.clone(), Arc::clone(&served));
        self.retiring.spawn(async move { loader.retire(before, after).await });
        served.raise_policy_epoch(&cache).await;
    }

    /// Takes a version down, and deletes its cache where `after` has another.
    async fn retire(&self, before: Arc<ServedModel>, after: Arc<ServedModel>) {
        let (name, space) = (before.name().to_owned(), before.space);
        let began = Instant::now();
        if !take_down(before, after).await {
            return;
        }
        // Not that of a version to come, even where it is of this space: it waits until this one is gone.
        self.discard_caches(&name, None).await;
        let drained = format!("{:.2?}", began.elapsed());
        info!(model = name, space_id = %space, drained, "the version before is gone");
    }

    /// Brings a version and its cache up.
    async fn load(&self, wanted: &Wanted) -> Result<(Arc<Runtime>, Stages), StartError> {
        let served = &wanted.served;
        let serving = &served.contract.serving;
        let shared = wanted.shared_cache();
        let taken = self.memory.take(served.name(), Needs::of(serving, shared.is_some()));
        let taken = Arc::new(taken.map_err(StartError::Refused)?);
        let model = self.model(served, &wanted.base, &taken);
        let (loaded, cache) = match (shared, &wanted.before) {
            (Some(cache), _) => (model.await, cache),
            (None, None) => tokio::join!(model, self.cache(served)),
            // A version that fails leaves no folder behind.
            (None, Some(_)) => {
                let loaded = model.await.map_err(StartError::Load)?;
                (Ok(loaded), self.cache(served).await)
            }
        };
        let LoadedModel { preparer, engine, mut stages } = loaded.map_err(StartError::Load)?;
        let fetcher = fetcher(served).map_err(StartError::Fetcher)?;
        let config = BatcherConfig {
            workers: self.workers,
            batching: serving.batching,
            longest: preparer.longest(),
        };
        let (began, metrics) = (Instant::now(), served.metrics.clone());
        // It goes on when this load is given up, and so does what it takes.
        let held = Arc::clone(&taken);
        let start = move || {
            let batcher = Batcher::start(engine, config, |length| preparer.sample(length), metrics);
            drop(held);
            (batcher, preparer)
        };
        let (batcher, preparer) = spawn_blocking(start).await.map_err(|_| StartError::WarmUp)?;
        let batcher = batcher.map_err(StartError::Workers)?;
        stages.warm_up = began.elapsed();
        if batcher.together().is_some_and(|together| together.needs_equal_lengths()) {
            info!(
                model = served.name(),
                "vectors depend on padding, as with dynamic int8: only texts of equal length are computed together"
            );
        }
        let runtime =
            Arc::new(Runtime { fetcher, preparer, batcher, cache, flights: Arc::default() });
        let began = Instant::now();
        self_test(wanted, &runtime).await.map_err(StartError::Refused)?;
        stages.self_test = began.elapsed();
        served.keep(taken);
        Ok((runtime, stages))
    }

    /// The cache of a space, in a folder of its own: two versions never share one, and neither do two processes that follow
    /// each other with other models.
    async fn cache(&self, served: &ServedModel) -> Arc<Cache> {
        let serving = &served.contract.serving;
        self.discard_caches(served.name(), Some(served)).await;
        let config = CacheConfig {
            folder: self.caches.join(&serving.name).join(served.space.to_string()),
            storage: serving.cache,
            dimensions: serving.output.dimensions.get() as usize,
        };
        let (policy, clock) = (Arc::clone(&served.policy), Arc::clone(&self.clock));
        Cache::open(config, policy, clock, served.metrics.cache.clone()).await
    }

    /// Deletes what caches of a name are neither of the version that is served nor of `next`.
    async fn discard_caches(&self, name: &str, next: Option<&ServedModel>) {
        let current = self.models.get(name).ok();
        let kept = current.as_deref().into_iter().chain(next);
        let spaces: Vec<String> = kept.map(|model| model.space.to_string()).collect();
        let folder = self.caches.join(name);
        let discarding = spawn_blocking(move || cache::discard_others(&folder, &spaces));
        // A disk that hangs holds nobody up; what takes longer goes on by itself.
        if timeout(DISCARD_LIMIT, discarding).await.is_err() {
            warn!(model = name, "caches of other versions are still being deleted");
        }
    }

    /// Loads a model, again and again while only its source fails: a source may be away for a while, as at the start of
    /// a whole cluster.
    async fn model(
        &self,
        served: &Arc<ServedModel>,
        base: &Path,
        taken: &Arc<Taken>,
    ) -> Result<LoadedModel, LoadError> {
        let mut waits = successors(Some(FIRST_WAIT), |wait| Some((*wait * 2).min(LONGEST_WAIT)));
        let mut last_failure = String::new();
        loop {
            let (progress, why) = (Arc::clone(served), last_failure);
            let on_state = move |state: State| match state {
                // The first says nothing new, and the others are said below: a model is ready when it answers, and
                // failed when it can be said why.
                State::Pending | State::SelfTest | State::Ready | State::Failed => {}
                State::Loading | State::Warming => progress.set_progress(state, String::new()),
                state => progress.set_progress(state, why.clone()),
            };
            // No more of a file comes in than memory is there for.
            let (serving, most) = (&served.contract.serving, taken.most_file_bytes());
            let artifact_size_limit = serving.artifact_size_limit.min(most);
            let bounded = ServingConfig { artifact_size_limit, ..serving.clone() };
            let from = (&bounded, &*self.artifacts, base);
            let file = Arc::clone(taken);
            let admit = Arc::new(move |bytes| file.take_file(bytes));
            let loaded = model::load_admitted(from, admit, on_state).await;
            let error = match loaded {
                Err(LoadError::Fetch(error))
                    if matches!(error.cause, FetchCause::TooLarge { .. })
                        && most < serving.artifact_size_limit =>
                {
                    // Whichever file it was.
                    let field = error.field.trim_end_matches(".uri").to_owned();
                    let refusal = Refusal { field, ..taken.too_large(most) };
                    return Err(LoadError::Refused(refusal));
                }
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

// === impl Wanted ===

impl Wanted {
    /// The cache of the version before, where vectors of both are the same and kept alike.
    fn shared_cache(&self) -> Option<Arc<Cache>> {
        let before = self.before.as_deref()?;
        let is_same = Arc::ptr_eq(&before.policy, &self.served.policy)
            && before.contract.serving.cache == self.served.contract.serving.cache;
        is_same.then(|| before.runtime().ok().map(|runtime| Arc::clone(&runtime.cache))).flatten()
    }
}

// === impl Load ===

impl Load {
    /// Gives it up, and waits until it has let go of everything.
    async fn end(mut self) {
        self.0.abort();
        // An error: it was aborted, or has ended.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === free functions ===

/// What fetches the images of a model that takes their URLs.
fn fetcher(served: &ServedModel) -> Result<Option<Fetcher>, FetcherError> {
    let Input::Image(input) = &served.contract.serving.input else { return Ok(None) };
    let network = (Gate::of_process(), system_lookup());
    Fetcher::of(input, network, served.metrics.fetch.clone())
}

/// Makes the checks of the spec, if it has some.
async fn self_test(wanted: &Wanted, runtime: &Arc<Runtime>) -> Result<(), Refusal> {
    let served = &wanted.served;
    let serving = &served.contract.serving;
    if serving.self_test.is_empty() {
        return Ok(());
    }
    served.set_progress(State::SelfTest, String::new());
    let measured = self_test::measure(serving, runtime).await?;
    let judged = self_test::judge(&measured);
    // What is told by the model's name alone is told of the version that serves.
    if judged.is_ok() || wanted.before.is_none() {
        let least = measured.iter().filter_map(|measured| measured.cosine).fold(1.0, f64::min);
        served.metrics.self_tested(least);
    }
    judged
}

/// Says that a version answers, and what bringing it up was spent on, in seconds.
fn tell(what: &str, (served, took): (&ServedModel, &str), stages: Stages) {
    info!(
        model = served.name(),
        took,
        space_id = %served.space,
        fetch = stages.fetch.as_secs_f64(),
        check = stages.check.as_secs_f64(),
        parse = stages.parse.as_secs_f64(),
        optimise = stages.optimise.as_secs_f64(),
        probe = stages.probe.as_secs_f64(),
        warm_up = stages.warm_up.as_secs_f64(),
        self_test = stages.self_test.as_secs_f64(),
        "{what}"
    );
}

/// A version that cannot be served.
pub(super) fn fail((served, before): (&ServedModel, Option<&ServedModel>), sentence: &str) {
    let kept = if before.is_some() { "; the version before goes on" } else { "" };
    error!(model = served.name(), "failed to load: {sentence}{kept}");
    served.set_progress(State::Failed, sentence.to_owned());
}
