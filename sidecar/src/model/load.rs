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
    support,
    tokenizer::Tokenizer,
    tract::{self, Takes},
};

/// The most time that parsing, optimising and trying out may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// A model that was tried out.
pub struct LoadedModel {
    /// Makes rows of inputs.
    pub preparer: Preparer,
    /// Makes vectors of rows; fork it for another thread.
    pub engine: Box<dyn Engine>,
}

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
}

/// What goes into a model, and the file that reads it.
enum Reads {
    Text(TextInput, Bytes),
    Image(ImageInput),
    Tensor(TensorInput),
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
    let on_state: OnState = Arc::new(on_state);
    let result = load_in_steps(serving, artifacts, base, &on_state).await;
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
        let Files { serving, reads, model } = self;
        let engine = |takes| -> Result<Box<dyn Engine>, Refusal> {
            let engine = tract::load(model, &serving, takes)?;
            on_state(State::Warming);
            engine.probe()?;
            Ok(Box::new(engine))
        };
        match reads {
            Reads::Text(input, file) => {
                let tokenizer = Tokenizer::load(&file, &input)?;
                drop(file);
                let engine = engine(Takes::Text { input: &input, tokenizer: tokenizer.facts() })?;
                Ok(LoadedModel { preparer: Preparer::Text(Box::new(tokenizer)), engine })
            }
            Reads::Image(input) => {
                let engine = engine(Takes::Image(&input))?;
                Ok(LoadedModel { preparer: Preparer::of_images(&input), engine })
            }
            Reads::Tensor(input) => {
                let engine = engine(Takes::Tensor(&input))?;
                Ok(LoadedModel { preparer: Preparer::of_tensors(&input), engine })
            }
        }
    }
}

// === free functions ===

async fn load_in_steps(
    serving: &ServingConfig,
    artifacts: &ArtifactStore,
    base: &Path,
    on_state: &OnState,
) -> Result<LoadedModel, LoadError> {
    on_state(State::Pending);
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
        Input::Categorical(_) => {
            let refusal = Refusal::new("spec.input", support::OTHER_INPUT);
            return Err(LoadError::Refused(refusal));
        }
    };
    let model = request(&serving.model, "spec.model.source");
    let model = artifacts.fetch(&model).await.map_err(LoadError::Fetch)?;
    let files = Files { serving: serving.clone(), reads, model };
    on_own_thread(files, on_state.clone()).await.map_err(LoadError::Refused)
}

/// Parses on a thread of its own: parsers and optimisers recurse, and a stack that overflows ends the process.
async fn on_own_thread(files: Files, on_state: OnState) -> Result<LoadedModel, Refusal> {
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
        Ok(Ok(loaded)) => {
            info!(
                model = name,
                seconds = started.elapsed().as_secs_f64(),
                "parsed and tried a model"
            );
            loaded
        }
        Ok(Err(_)) => Err(refuse("the thread that loaded the model ended early".to_owned())),
        Err(_) => {
            Err(refuse(format!("loading the model took more than {} s", LOAD_TIMEOUT.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests;
