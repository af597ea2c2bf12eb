//! Follows the files that cache policies come from, one task for all models. A good policy comes into force without a
//! restart; a bad one leaves the policy before in force, and is told of.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    config::{
        ModelConfig,
        watch::{self, News, Watch},
    },
    metrics::Reload,
    served::{ServedModel, ServedModels},
};

/// How often files are read.
const EVERY: Duration = Duration::from_secs(1);

/// Starts to follow the policy of every model that is loaded; one that is refused stays so until a restart.
pub(super) fn start(configs: &[ModelConfig], models: &ServedModels) -> JoinHandle<()> {
    let (mut watches, mut watched) = (Vec::new(), Vec::new());
    for config in configs.iter().filter(|config| config.unsupported.is_empty()) {
        let Ok(model) = models.get(&config.contract.serving.name) else { continue };
        match Watch::of(config) {
            Some(watch) => {
                watches.push(watch);
                watched.push(Arc::clone(model));
            }
            None => info!(model = model.name(), "its manifest is no file; it is not read again"),
        }
    }
    tokio::spawn(follow(watches, watched))
}

async fn follow(mut watches: Vec<Watch>, models: Vec<Arc<ServedModel>>) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !watches.is_empty() {
        looks.tick().await;
        let look = move || {
            let news = watch::look(&mut watches);
            (watches, news)
        };
        // Off the threads that answer: a file system may take its time.
        let (looked, news) = match spawn_blocking(look).await {
            Ok(looked) => looked,
            Err(error) => return error!("cache policies are not followed any more: {error}"),
        };
        watches = looked;
        join_all(news.into_iter().map(|(number, new)| hear(&models[number], new))).await;
    }
}

/// Does what is new about a model's file.
async fn hear(model: &ServedModel, news: News) {
    match news {
        News::Good { policy, rest } => {
            let is_other = model.policy.load().cache != policy;
            if is_other {
                model.follow(policy).await;
                model.metrics.policy.count(Reload::Applied);
                let (hash, policy) = {
                    let policy = model.policy.load();
                    (policy.hash.clone(), policy.cache.to_json())
                };
                info!(model = model.name(), hash, policy, "follows another cache policy");
                warn_of_epoch(model);
            } else if rest.is_empty() && !model.policy.trouble().is_empty() {
                info!(model = model.name(), "the file of its cache policy is good again");
            }
            if !rest.is_empty() {
                warn!(model = model.name(), "{rest}");
            }
            model.policy.set_trouble(rest);
        }
        News::Bad { outcome, sentence } => {
            model.metrics.policy.count(outcome);
            warn!(model = model.name(), "the cache policy stays as it was: {sentence}");
            model.policy.set_trouble(format!("the cache policy stays as it was: {sentence}"));
        }
    }
}

/// A policy may ask for an epoch that fell, which is never followed.
fn warn_of_epoch(model: &ServedModel) {
    let status = model.runtime().ok().map(|runtime| runtime.cache.status());
    if let Some(refused) = status.and_then(|status| status.epoch_refused) {
        warn!(model = model.name(), "{refused}");
    }
}
