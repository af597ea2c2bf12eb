//! `grpc.health.v1`: `""` and each service's name stand for the process, a model's name for the model.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    model::load::State,
    pb::server::{
        cache_service_server::CacheServiceServer, embedding_service_server::EmbeddingServiceServer,
    },
    readiness::Readiness,
    served::{ServedModel, ServedModels},
};

use super::{cache_service::Caches, embeddings::Embeddings};

/// Every name that stands for the process.
const PROCESS: [&str; 3] =
    ["", EmbeddingServiceServer::<Embeddings>::NAME, CacheServiceServer::<Caches>::NAME];

/// How often it looks for what nobody tells of: a queue that stands still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps what health answers equal to what is so.
pub struct Health {
    reporter: HealthReporter,
    models: ServedModels,
    readiness: Readiness,
    /// What was said of each name last: a watcher hears of changes alone.
    said: BTreeMap<String, bool>,
}

// === impl Health ===

impl Health {
    /// Answers that go through `reporter`. It says that the process serves until [`Health::say`] was called.
    pub fn new(reporter: HealthReporter, models: ServedModels, readiness: Readiness) -> Self {
        Health { reporter, models, readiness, said: BTreeMap::new() }
    }

    /// Says what is so now.
    pub async fn say(&mut self) {
        let ready = self.readiness.check().is_ok();
        for name in PROCESS {
            self.say_of(name, ready).await;
        }
        let models = self.models.clone();
        for awaited in models.awaited() {
            self.say_of(&awaited.name, false).await;
        }
        for model in models.iter() {
            let serving = answers(&model) && !self.readiness.is_draining();
            self.say_of(model.name(), serving).await;
        }
    }

    /// Says every change until the server stops, then ends the calls that watch: they would hold it up.
    pub async fn follow(mut self, mut stopped: watch::Receiver<bool>) {
        let mut changes = self.readiness.changes();
        let stop = stopped.wait_for(|stopped| *stopped);
        tokio::pin!(stop);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.say().await;
            tokio::select! {
                () = changes.changed() => {}
                _ = looks.tick() => {}
                _ = &mut stop => break,
            }
        }
        self.readiness.drain();
        self.say().await;
        for name in self.said.keys() {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn say_of(&mut self, name: &str, serving: bool) {
        if self.said.insert(name.to_owned(), serving) != Some(serving) {
            self.reporter.set_service_status(name, status(serving)).await;
        }
    }
}

// === free functions ===

fn answers(model: &ServedModel) -> bool {
    model.progress().borrow().state == State::Ready
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
