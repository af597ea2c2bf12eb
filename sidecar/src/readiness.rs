//! Whether the process should be sent requests: every model has been ready once, and it is not draining. The cache never
//! decides it.

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::sync::watch;

use crate::{
    model::load::State,
    served::{ServedModel, ServedModels},
};

/// The process's readiness.
#[derive(Clone)]
pub struct Readiness {
    models: ServedModels,
    draining: Arc<watch::Sender<bool>>,
}

/// A wait for anything that readiness depends on.
pub struct Changes {
    served: ServedModels,
    /// Says that another version stands under some name.
    set: watch::Receiver<()>,
    models: Vec<watch::Receiver<crate::served::Progress>>,
    draining: watch::Receiver<bool>,
}

// === impl Readiness ===

impl Readiness {
    /// The readiness of a process that serves these models.
    pub fn new(models: ServedModels) -> Self {
        Readiness { models, draining: Arc::new(watch::Sender::new(false)) }
    }

    /// Whether requests should be sent here.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn check(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("the server is draining".to_owned());
        }
        if let Some(awaited) = self.models.awaited().first() {
            return Err(awaited.error().message.clone());
        }
        for model in self.models.iter() {
            let runtime = model.runtime().map_err(|error| error.message.clone())?;
            if let Some(still) = runtime.batcher.stalled() {
                let (name, seconds) = (model.name(), still.as_secs());
                return Err(format!(
                    "model {name:?} has computed nothing of what waits for {seconds} s"
                ));
            }
        }
        Ok(())
    }

    /// Whether the process can go on at all.
    ///
    /// # Errors
    /// A sentence that says why only another one may help.
    pub fn alive(&self) -> Result<(), String> {
        let hopeless = |model: &Arc<ServedModel>| {
            model.runtime().is_ok_and(|runtime| runtime.batcher.is_hopeless())
        };
        match self.models.iter().find(hopeless) {
            None => Ok(()),
            Some(model) => {
                let name = model.name();
                Err(format!("the threads of model {name:?} have panicked and cannot be replaced"))
            }
        }
    }

    /// Whether the process is going away.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// From now on the process is going away.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// A wait for changes from now on.
    pub fn changes(&self) -> Changes {
        Changes {
            served: self.models.clone(),
            set: self.models.changes(),
            models: self.models.iter().map(|model| model.progress()).collect(),
            draining: self.draining.subscribe(),
        }
    }

    /// Waits until the process is ready, or until no model can become so.
    pub async fn settled(&self) {
        let mut changes = self.changes();
        let pending = |state: State| !matches!(state, State::Ready | State::Failed);
        while self.models.iter().any(|model| pending(model.progress().borrow().state)) {
            changes.changed().await;
        }
    }
}

// === impl Changes ===

impl Changes {
    /// Waits for the next change.
    pub async fn changed(&mut self) {
        let models = self.models.iter_mut().map(|model| Box::pin(model.changed()));
        let models: Vec<_> = models.collect();
        // The first of none would be a panic.
        let any_model = async move {
            match models.is_empty() {
                true => std::future::pending().await,
                false => drop(select_all(models).await),
            }
        };
        let is_another_set = tokio::select! {
            _ = any_model => false,
            _ = self.set.changed() => true,
            _ = self.draining.changed() => false,
        };
        if is_another_set {
            // What has changed of them so far is seen by who is told of this.
            self.models = self.served.iter().map(|model| model.progress()).collect();
        }
    }
}
