//! `/status`: what the process serves and how it is, as JSON. The operator and people read it.

use embark_crds::contract::report::{
    CacheReport, DiskReport, DiskState, MemoryReport, ModelReport, QueueReport, Report,
};

use super::Admin;
use crate::{
    cache::{self, CacheStatus},
    served::ServedModel,
};

/// What there is to say now.
pub(super) fn report(admin: &Admin) -> Report {
    let readiness = admin.readiness.check();
    Report {
        instance: admin.instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: readiness.is_ok(),
        message: readiness.err().unwrap_or_default(),
        models: admin.models.iter().map(|model| of_model(model)).collect(),
    }
}

fn of_model(model: &ServedModel) -> ModelReport {
    let serving = &model.contract.serving;
    let progress = model.progress().borrow().clone();
    ModelReport {
        name: serving.name.clone(),
        state: progress.state.reported(),
        message: progress.message,
        space_id: model.space.to_string(),
        model_digest: serving.model.sha256.to_string(),
        dimensions: serving.output.dimensions.get(),
        policy_hash: model.policy.load().hash.clone(),
        queue: QueueReport {
            items: model.metrics.queue_items.get(),
            cost: model.metrics.queue_cost.get(),
            max_items: serving.batching.queue_max_items,
            max_cost: serving.batching.queue_max_tokens,
            workers: model.metrics.workers.get(),
        },
        cache: model.runtime().ok().map(|runtime| of_cache(model, runtime.cache.status())),
    }
}

fn of_cache(model: &ServedModel, status: CacheStatus) -> CacheReport {
    let limits = &model.contract.serving.cache;
    let refused = status.epoch_refused.map(|refused| refused.message).unwrap_or_default();
    let trouble = model.policy.trouble();
    let sentences = [refused.as_str(), trouble.as_str()];
    let said: Vec<&str> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    let (state, message) = match status.disk {
        cache::store::DiskState::Off => (DiskState::Off, String::new()),
        cache::store::DiskState::Healthy => (DiskState::Healthy, String::new()),
        cache::store::DiskState::Degraded { message } => (DiskState::Degraded, message),
    };
    let (bytes, size_limit) = (status.disk_bytes, limits.disk_bytes);
    CacheReport {
        epoch: status.epoch,
        message: said.join("; "),
        memory: MemoryReport {
            entries: status.memory_entries,
            bytes: status.memory_bytes,
            size_limit: limits.memory_bytes,
        },
        disk: DiskReport { state, message, bytes, size_limit },
    }
}
