//! The use case of this module: a contract becomes a model that can be run. Fetch, verify, check, parse, try out.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use embark_crds::contract::{
    ImageInput, Input, ServingConfig, TensorInput, TextInput, report::ModelState,
};
use tokio::sync::oneshot;
use tracing::info;

use super::{
    artifact::{ArtifactStore, FetchError, Progress, Request},
    engine::Engine,
    preparer::Preparer,
    refusal::{Refusal, contained},
    stages::{Stages, timed},
    tokenizer::Tokenizer,
    tract::{self, Takes},
    vocabulary::{VOCABULARY, Vocabulary},
};

/// The most time that parsing, optimising and trying out may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// A model that was tried out.
pub struct LoadedModel {
    /// Makes rows of inputs.
    pub preparer: Preparer,
    /// Makes vectors of rows; fork it for another thread.
    pub engine: Box<dyn Engine>,
    /// What it was spent on.
    pub stages: Stages,
}

/// Whether a model's file of so many bytes may be loaded.
pub type Admit = Arc<dyn Fn(u64) -> Result<(), Refusal> + Send + Sync>;

/// How far a model is. The states follow each other in this order, and [`State::Failed`] may follow any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was done yet.
    Pending,
    /// A file is coming in.
    Fetching {
        /// Bytes of it so far.
        bytes: u64,
        /// Bytes of the whole file, where its source says so.
        total: Option<u64>,
    },
    /// A file is being hashed.
    Verifying,
    /// The files are being parsed and optimised.
    Loading,
    /// The model is being tried out.
    Warming,
    /// Its checks are made.
    SelfTest,
    /// It can be run.
    Ready,
    /// It is not served.
    Failed,
}

/// Why a model is not served: one sentence that opens with the field it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A file could not be had.
    #[error(transparent)]
    Fetch(FetchError),
    /// The files and the manifest do not fit each other, or the runtime cannot run the model.
    #[error(transparent)]
    Refused(Refusal),
}

/// What the loading thread works on.
struct Files {
    serving: ServingConfig,
    reads: Reads,
    model: Bytes,
    stages: Stages,
}

/// What goes into a model, and the file that reads it.
enum Reads {
    Text(TextInput, Bytes),
    Image(ImageInput),
    Tensor(TensorInput),
    Category(Bytes),
}

/// Told of every state.
type OnState = Arc<dyn Fn(State) + Send + Sync>;

/// Loads a model. Whatever the file is, no panic of a parser gets out, and the caller's threads are not blocked.
///
/// # Errors
/// One sentence that names the field.
pub async fn load(
    serving: &ServingConfig,
    artifacts: &ArtifactStore,
    base: &Path,
    on_state: impl Fn(State) + Send + Sync + 'static,
) -> Result<LoadedModel, LoadError> {
    load_admitted((serving, artifacts, base), Arc::new(|_| Ok(())), on_state).await
}

/// The same, of a file whose size is asked about before it is parsed.
///
/// # Errors
/// As above, or it may not be loaded.
pub async fn load_admitted(
    (serving, artifacts, base): (&ServingConfig, &ArtifactStore, &Path),
    admit: Admit,
    on_state: impl Fn(State) + Send + Sync + 'static,
) -> Result<LoadedModel, LoadError> {
    let on_state: OnState = Arc::new(on_state);
    let result = load_in_steps((serving, artifacts, base), admit, &on_state).await;
    on_state(if result.is_ok() { State::Ready } else { State::Failed });
    result
}

// === impl State ===

impl State {
    /// What a report says of it.
    pub fn reported(self) -> ModelState {
        match self {
            State::Pending => ModelState::Pending,
            State::Fetching { .. } => ModelState::Fetching,
            State::Verifying => ModelState::Verifying,
            State::Loading => ModelState::Loading,
            State::Warming => ModelState::Warming,
            State::SelfTest => ModelState::SelfTest,
            State::Ready => ModelState::Ready,
            State::Failed => ModelState::Failed,
        }
    }
}

// === impl LoadError ===

impl LoadError {
    /// Whether another try later may succeed without a change of the manifest.
    pub fn is_transient(&self) -> bool {
        matches!(self, LoadError::Fetch(error) if error.is_transient())
    }
}

// === impl Files ===

impl Files {
    fn load(self, on_state: &OnState) -> Result<LoadedModel, Refusal> {
        on_state(State::Loading);
        let Files { serving, reads, model, mut stages } = self;
        let engine = |takes, stages: &mut Stages| -> Result<Box<dyn Engine>, Refusal> {
            let engine = tract::load(model, &serving, takes, stages)?;
            on_state(State::Warming);
            timed(&mut stages.probe, || engine.probe())?;
            Ok(Box::new(engine))
        };
        let (preparer, engine) = match reads {
            Reads::Text(input, file) => {
                let tokenizer = timed(&mut stages.check, || Tokenizer::load(&file, &input))?;
                drop(file);
                let takes = Takes::Text { input: &input, tokenizer: tokenizer.facts() };
                let engine = engine(takes, &mut stages)?;
                (Preparer::Text(Box::new(tokenizer)), engine)
            }
            Reads::Image(input) => {
                let engine = engine(Takes::Image(&input), &mut stages)?;
                (Preparer::of_images(&input), engine)
            }
            Reads::Tensor(input) => {
                let engine = engine(Takes::Tensor(&input), &mut stages)?;
                (Preparer::of_tensors(&input), engine)
            }
            Reads::Category(file) => {
                let vocabulary = timed(&mut stages.check, || Vocabulary::load(file))?;
                let engine = engine(Takes::Category(vocabulary.len()), &mut stages)?;
                (Preparer::Category(Box::new(vocabulary)), engine)
            }
        };
        Ok(LoadedModel { preparer, engine, stages })
    }
}

// === free functions ===

async fn load_in_steps(
    (serving, artifacts, base): (&ServingConfig, &ArtifactStore, &Path),
    admit: Admit,
    on_state: &OnState,
) -> Result<LoadedModel, LoadError> {
    on_state(State::Pending);
    let began = tokio::time::Instant::now();
    let progress = |progress| {
        on_state(match progress {
            Progress::Fetching { bytes, total } => State::Fetching { bytes, total },
            Progress::Verifying => State::Verifying,
        });
    };
    let request = |artifact, field| {
        let size_limit = serving.artifact_size_limit;
        Request { artifact, field, size_limit, base, progress: &progress }
    };
    let reads = match &serving.input {
        Input::Text(text) => {
            let tokenizer = request(&text.tokenizer, "spec.input.text.tokenizer");
            let file = artifacts.fetch(&tokenizer).await.map_err(LoadError::Fetch)?;
            Reads::Text(text.clone(), file)
        }
        Input::Image(image) => Reads::Image(image.clone()),
        Input::Tensor(tensor) => Reads::Tensor(tensor.clone()),
        Input::Categorical(categorical) => {
            let vocabulary = request(&categorical.vocabulary, VOCABULARY);
            Reads::Category(artifacts.fetch(&vocabulary).await.map_err(LoadError::Fetch)?)
        }
    };
    let model = request(&serving.model, "spec.model.source");
    let model = artifacts.fetch(&model).await.map_err(LoadError::Fetch)?;
    admit(model.len() as u64).map_err(LoadError::Refused)?;
    let stages = Stages { fetch: began.elapsed(), ..Stages::default() };
    let files = Files { serving: serving.clone(), reads, model, stages };
    on_own_thread((files, admit), on_state.clone()).await.map_err(LoadError::Refused)
}

/// Parses on a thread of its own: parsers and optimisers recurse, and a stack that overflows ends the process.
/// What it was admitted by is kept as long as the thread runs, which nothing ends early.
async fn on_own_thread(
    (files, admit): (Files, Admit),
    on_state: OnState,
) -> Result<LoadedModel, Refusal> {
    let refuse = |why: String| Refusal::new("spec.model.source", why);
    let name = files.serving.name.clone();
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        let loaded = contained(|| files.load(&on_state));
        let loaded = loaded.unwrap_or_else(|words| {
            let sentence = format!("the runtime cannot read the model: {words}");
            Err(Refusal::new("spec.model.source", sentence))
        });
        // Nobody waits any more when it took too long.
        let _ = sender.send(loaded);
        drop(admit);
    };
    std::thread::Builder::new()
        .name("embark-load".to_owned())
        .stack_size(tract::STACK_BYTES)
        .spawn(work)
        .map_err(|error| {
            refuse(format!("no thread could be started to load the model: {error}"))
        })?;
    let started = tokio::time::Instant::now();
    match tokio::time::timeout(LOAD_TIMEOUT, receiver).await {
        Ok(Ok(Ok(loaded))) => {
            let seconds = started.elapsed().as_secs_f64();
            info!(model = name, seconds, "parsed and tried a model");
            Ok(loaded)
        }
        Ok(Ok(Err(refusal))) => Err(refusal),
        Ok(Err(_)) => Err(refuse("the thread that loaded the model ended early".to_owned())),
        Err(_) => {
            Err(refuse(format!("loading the model took more than {} s", LOAD_TIMEOUT.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests;
