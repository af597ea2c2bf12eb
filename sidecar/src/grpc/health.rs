//! `grpc.health.v1`: `""` and each service's name stand for the process, a model's name for the model.

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

use super::{cache_service::Caches, embedding_service::Embeddings};

/// Every name that stands for the process.
const PROCESS: [&str; 3] =
    ["", EmbeddingServiceServer::<Embeddings>::NAME, CacheServiceServer::<Caches>::NAME];

/// Keeps what health answers equal to what is so, until the process has drained.
pub async fn follow(reporter: HealthReporter, models: ServedModels, readiness: Readiness) {
    let mut changes = readiness.changes();
    loop {
        let ready = readiness.check().is_ok();
        for name in PROCESS {
            reporter.set_service_status(name, status(ready)).await;
        }
        for model in models.iter() {
            let serving = answers(model) && !readiness.is_draining();
            reporter.set_service_status(model.name(), status(serving)).await;
        }
        changes.changed().await;
    }
}

fn answers(model: &ServedModel) -> bool {
    model.progress().borrow().state == State::Ready
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
