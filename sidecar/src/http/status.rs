//! `/status`: what the process serves and how it is, as JSON. The operator and people read it.

use serde::Serialize;

use super::Admin;
use crate::{
    cache::{CacheStatus, store::DiskState},
    served::ServedModel,
};

/// The process.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    instance: String,
    version: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    models: Vec<Model>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    name: String,
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    space_id: String,
    model_digest: String,
    dimensions: u32,
    queue: Queue,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    items: i64,
    cost: i64,
    max_items: u32,
    max_cost: u32,
    workers: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cache {
    epoch: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    memory: Tier,
    disk: Disk,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tier {
    entries: u64,
    bytes: u64,
    size_limit: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    bytes: u64,
    size_limit: u64,
}

// === impl Status ===

impl Status {
    pub(super) fn of(admin: &Admin) -> Self {
        let readiness = admin.readiness.check();
        Status {
            instance: admin.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            ready: readiness.is_ok(),
            message: readiness.err().unwrap_or_default(),
            models: admin.models.iter().map(|model| Model::of(model)).collect(),
        }
    }
}

// === impl Model ===

impl Model {
    fn of(model: &ServedModel) -> Self {
        let serving = &model.contract.serving;
        let progress = model.progress().borrow().clone();
        Model {
            name: serving.name.clone(),
            state: progress.state.as_str().to_owned(),
            message: progress.message,
            space_id: model.space.to_string(),
            model_digest: serving.model.sha256.to_string(),
            dimensions: serving.output.dimensions.get(),
            queue: Queue {
                items: model.metrics.queue_items.get(),
                cost: model.metrics.queue_cost.get(),
                max_items: serving.batching.queue_max_items,
                max_cost: serving.batching.queue_max_tokens,
                workers: model.metrics.workers.get(),
            },
            cache: model.runtime().ok().map(|runtime| Cache::of(model, runtime.cache.status())),
        }
    }
}

// === impl Cache ===

impl Cache {
    fn of(model: &ServedModel, status: CacheStatus) -> Self {
        let limits = &model.contract.serving.cache;
        let (state, message) = match status.disk {
            DiskState::Off => ("off", String::new()),
            DiskState::Healthy => ("healthy", String::new()),
            DiskState::Degraded { message } => ("degraded", message),
        };
        Cache {
            epoch: status.epoch,
            message: status.epoch_refused.map(|refused| refused.message).unwrap_or_default(),
            memory: Tier {
                entries: status.memory_entries,
                bytes: status.memory_bytes,
                size_limit: limits.memory_bytes,
            },
            disk: Disk { state, message, bytes: status.disk_bytes, size_limit: limits.disk_bytes },
        }
    }
}
