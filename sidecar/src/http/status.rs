//! `/status`: what the process serves and how it is, as JSON. The operator and people read it.

use embark_crds::contract::report::{
    CacheReport, CostReport, DiskReport, DiskState, EndpointReport, MemoryReport, MergingReport,
    ModelReport, ModelState, NextReport, QueueReport, RecentReport, Report,
};

use super::Admin;
use crate::{
    batch::{Batcher, costs::Measured},
    cache::{self, CacheStatus},
    metrics::Answered,
    served::{Awaited, Next, ServedModel, ServedModels},
};

/// What there is to say now.
pub(super) fn report(admin: &Admin) -> Report {
    let readiness = admin.readiness.check();
    Report {
        instance: admin.instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: readiness.is_ok(),
        message: readiness.err().unwrap_or_default(),
        endpoint: EndpointReport {
            tls: admin.secrets.tls.is_some(),
            token: admin.secrets.tokens.is_some(),
            message: admin.secrets.trouble(),
        },
        models: models(&admin.models),
    }
}

/// Every model by name, also those that cannot be read yet.
fn models(served: &ServedModels) -> Vec<ModelReport> {
    let awaited = served.awaited();
    let mut models: Vec<ModelReport> = served.iter().map(|model| of_model(&model)).collect();
    // One that was put in its place meanwhile is told of once.
    let is_new = |one: &&Awaited| models.iter().all(|model| model.name != one.name);
    let awaited: Vec<ModelReport> = awaited.iter().filter(is_new).map(of_awaited).collect();
    models.extend(awaited);
    models.sort_by(|one, other| one.name.cmp(&other.name));
    models
}

fn of_awaited(awaited: &Awaited) -> ModelReport {
    ModelReport {
        name: awaited.name.clone(),
        state: awaited.progress.state.reported(),
        message: awaited.progress.message.clone(),
        space_id: String::new(),
        model_digest: String::new(),
        dimensions: 0,
        policy_hash: String::new(),
        queue: QueueReport::default(),
        merging: None,
        cache: None,
        next: None,
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
        queue: of_queue(model),
        merging: model.runtime().ok().and_then(|runtime| of_merging(&runtime.batcher)),
        next: model.next().map(|next| of_next(&next)),
        cache: model.runtime().ok().map(|runtime| of_cache(model, runtime.cache.status())),
    }
}

fn of_queue(model: &ServedModel) -> QueueReport {
    let (batching, metrics) = (&model.contract.serving.batching, &model.metrics.batch);
    let now = QueueReport {
        items: metrics.queue_items.get(),
        cost: metrics.queue_cost.get(),
        max_items: batching.queue_max_items,
        max_cost: batching.queue_max_tokens,
        workers: metrics.workers.get(),
        ..QueueReport::default()
    };
    let Ok(runtime) = model.runtime() else { return now };
    let load = runtime.batcher.load();
    QueueReport {
        running: load.running as u64,
        wait_ms: u64::try_from(load.wait().as_millis()).unwrap_or(u64::MAX),
        flights: runtime.flights.len() as u64,
        costs: runtime.batcher.costs().into_iter().map(of_cost).collect(),
        ..now
    }
}

fn of_cost(Measured { rows, length, took }: Measured) -> CostReport {
    let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    CostReport { rows, length, microseconds }
}

fn of_merging(batcher: &Batcher) -> Option<MergingReport> {
    let together = batcher.together()?;
    // 1 − cosine is 0 to 2.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 2,000,000"
    )]
    let ppm = |difference: f64| (difference * 1e6).round() as u32;
    Some(MergingReport {
        padded_difference_ppm: ppm(together.padded),
        equal_difference_ppm: ppm(together.equal),
        equal_lengths_only: !batcher.mixes_lengths(),
    })
}

fn of_next(next: &Next) -> NextReport {
    match next {
        Next::Refused(sentence) => NextReport {
            state: ModelState::Failed,
            message: sentence.clone(),
            space_id: String::new(),
            model_digest: String::new(),
        },
        Next::Version(model) => {
            let progress = model.progress().borrow().clone();
            NextReport {
                state: progress.state.reported(),
                message: progress.message,
                space_id: model.space.to_string(),
                model_digest: model.contract.serving.model.sha256.to_string(),
            }
        }
    }
}

fn of_recent(answered: Answered) -> RecentReport {
    let Answered { hits, items } = answered;
    let percent = (hits * 100).checked_div(items);
    let hit_percent = percent.and_then(|percent| u8::try_from(percent).ok());
    RecentReport { hits, items, hit_percent }
}

fn of_cache(model: &ServedModel, status: CacheStatus) -> CacheReport {
    let limits = &model.contract.serving.cache;
    let refused = status.epoch_refused.map(|refused| refused.message.clone()).unwrap_or_default();
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
        recent: of_recent(model.metrics.recently_answered()),
        memory: MemoryReport {
            entries: status.memory_entries,
            bytes: status.memory_bytes,
            size_limit: limits.memory_bytes,
        },
        disk: DiskReport { state, message, bytes, size_limit },
    }
}
