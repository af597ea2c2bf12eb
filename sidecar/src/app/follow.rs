//! Follows the files that models are written down in, one task for all of them. A good cache policy comes into force at once.
//! What else is new is another version: it is loaded beside the one that serves, and takes over when it is ready. A bad file
//! leaves what serves as it is, and is told of. What is mounted and could not be read at the start is read again until it can.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use embark_crds::contract::{CachePolicy, Contract, LEAST_MAX_REQUEST_BYTES, ServingConfig};
use futures_util::future::join_all;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::load::{Load, Loader, Wanted, fail};
use crate::{
    config::{
        ModelConfig, Unread,
        watch::{self, Arrivals, News, Watch},
    },
    metrics::{Metrics, Reload},
    model::{load::State, support::Offered},
    policy,
    served::{Awaited, Next, Progress, ServedModel, ServedModels},
};

/// How often files are read.
const EVERY: Duration = Duration::from_secs(1);

/// What is to be followed.
pub(super) struct Sources {
    /// Models that are served.
    pub(super) models: Vec<ModelConfig>,
    /// Those that will be, as soon as they can be read.
    pub(super) unread: Vec<Unread>,
    /// What comes into their folders.
    pub(super) arrivals: Arrivals,
    /// What a model may ask the process for.
    pub(super) offered: Offered,
}

/// What the task has.
struct Follower {
    loader: Loader,
    metrics: Arc<Metrics>,
    offered: Offered,
    watched: Vec<Watched>,
    /// The last load of each name.
    loads: BTreeMap<String, Load>,
    /// The most bytes of a request that the server takes: it is settled when it begins.
    request_bytes: u64,
}

/// A model whose files are followed.
struct Watched {
    name: String,
    base: PathBuf,
    /// Whether its files were told of before: the first time they are what the process began with.
    is_known: bool,
}

/// Starts to load every model, and to follow its files, by which another version may ask for what is offered. Ends with
/// the loads that are under way when it is aborted.
pub(super) fn start(sources: Sources, loader: Loader, metrics: Arc<Metrics>) -> JoinHandle<()> {
    let Sources { models, unread, arrivals, offered } = sources;
    let request_bytes = models.iter().map(|config| config.contract.serving.max_request_bytes());
    let request_bytes = request_bytes.chain([LEAST_MAX_REQUEST_BYTES]).max().unwrap_or_default();
    let (watched, loads) = (Vec::new(), BTreeMap::new());
    let mut follower = Follower { loader, metrics, offered, watched, loads, request_bytes };
    let watches = models.into_iter().filter_map(|config| follower.begin(config)).collect();
    for one in &unread {
        follower.await_model(one);
    }
    tokio::spawn(follower.follow(watches, (unread, arrivals)))
}

// === impl Follower ===

impl Follower {
    async fn follow(
        mut self,
        mut watches: Vec<Watch>,
        (mut unread, mut arrivals): (Vec<Unread>, Arrivals),
    ) {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let offered = self.offered;
            let look = move || {
                let (news, arrived) = (watch::look(&mut watches), arrivals.look());
                let models = watch::look_again(&mut unread, offered);
                ((watches, unread, arrivals), (news, arrived, models))
            };
            // Off the threads that answer: a file system may take its time.
            let (looked, (news, arrived, models)) = match spawn_blocking(look).await {
                Ok(looked) => looked,
                Err(error) => {
                    error!("the files of models are not followed any more: {error}");
                    // With it, loads under way would end.
                    return std::future::pending().await;
                }
            };
            (watches, unread, arrivals) = looked;
            for path in arrived {
                warn!(path = %path.display(), "is new; models that come are served after a restart");
            }
            // Policies of all at once: a disk that hangs holds up its own model's alone.
            let policies = news.iter().map(|(number, new)| {
                follow_policy(&self.loader.models, &self.watched[*number].name, new)
            });
            join_all(policies).await;
            for (number, new) in news {
                if let News::Good { policy, serving } = new {
                    self.consider(number, policy, serving);
                }
            }
            unread.iter().for_each(|one| self.await_model(one));
            watches.extend(models.into_iter().filter_map(|config| self.welcome(config)));
        }
    }

    /// Starts to load a model that stands under its name, and gives the watch over its files, if they can be followed.
    fn begin(&mut self, config: ModelConfig) -> Option<Watch> {
        let name = config.contract.serving.name.clone();
        let watch = Watch::of(&config, self.offered);
        match &watch {
            Some(_) => {
                let (name, base) = (name.clone(), config.base.clone());
                self.watched.push(Watched { name, base, is_known: false });
            }
            None => info!(model = name, "its manifest is no file; it is not read again"),
        }
        let served = self.loader.models.get(&name).ok()?;
        if config.unsupported.is_empty() {
            self.load(Wanted { served, base: config.base, before: None });
        } else {
            let sentences: Vec<String> =
                config.unsupported.iter().map(ToString::to_string).collect();
            fail((&served, None), &sentences.join("; "));
        }
        watch
    }

    /// Serves a model that can be read at last.
    fn welcome(&mut self, config: ModelConfig) -> Option<Watch> {
        let name = &config.contract.serving.name;
        info!(model = name, "it can be read now");
        let served = ServedModel::new(config.contract.clone(), self.metrics.model(name));
        let served = Arc::new(served);
        self.warn_of_large_requests(&served);
        self.loader.models.put(&served);
        self.begin(config)
    }

    /// Says why a model is not served yet, when that is new.
    fn await_model(&self, unread: &Unread) {
        let Unread { name, sentence, is_awaited, .. } = unread;
        let state = if *is_awaited { State::Pending } else { State::Failed };
        let progress = Progress { state, message: sentence.clone() };
        let awaited = Awaited { name: name.clone(), progress };
        if !self.loader.models.awaited().contains(&awaited) {
            warn!(model = name, "it cannot be served yet: {sentence}");
            self.loader.models.wait_for(&awaited);
        }
    }

    /// The server's bound is settled when it begins.
    fn warn_of_large_requests(&self, served: &ServedModel) {
        let (needed, taken) = (served.contract.serving.max_request_bytes(), self.request_bytes);
        if needed > taken {
            warn!(
                model = served.name(),
                "requests of more than {taken} bytes are refused until a restart, though its items may need {needed}"
            );
        }
    }

    /// Does what is to be done about what is asked to be served.
    fn consider(
        &mut self,
        number: usize,
        policy: CachePolicy,
        asked: Result<Box<ServingConfig>, String>,
    ) {
        let watched = &mut self.watched[number];
        let was_known = std::mem::replace(&mut watched.is_known, true);
        let (name, base) = (watched.name.clone(), watched.base.clone());
        let Ok(current) = self.loader.models.get(&name) else { return };
        let has_failed = current.progress().borrow().state == State::Failed;
        let serving = match asked {
            Ok(serving) => *serving,
            // It was said when it was read first.
            Err(_) if !was_known && has_failed => return,
            Err(sentence) => return self.refuse(&current, sentence),
        };
        if serving == current.contract.serving {
            if current.next().is_some() {
                if current.runtime().is_ok() {
                    self.loads.remove(&name);
                }
                current.set_next(None);
                info!(model = name, "its files ask for the version that serves again");
            }
            // Its files changed, so what it failed of may have, too.
            if !(has_failed && was_known) {
                return;
            }
        }
        if let Some(Next::Version(next)) = current.next().as_deref()
            && next.contract.serving == serving
            && next.progress().borrow().state != State::Failed
        {
            return;
        }
        self.replace(&current, base, Contract { serving, policy });
    }

    fn refuse(&mut self, current: &ServedModel, sentence: String) {
        if current.runtime().is_ok() {
            self.loads.remove(current.name());
        }
        warn!(model = current.name(), "the version that is served stays: {sentence}");
        current.set_next(Some(Next::Refused(sentence)));
    }

    /// Loads another version: beside one that answers, in the place of one that does not.
    fn replace(&mut self, current: &Arc<ServedModel>, base: PathBuf, contract: Contract) {
        let served = Arc::new(current.version(contract));
        info!(
            model = served.name(),
            digest = %served.contract.serving.model.sha256,
            space_id = %served.space,
            "loading another version",
        );
        self.warn_of_large_requests(&served);
        let before = current.runtime().is_ok().then(|| Arc::clone(current));
        match &before {
            Some(before) => before.set_next(Some(Next::Version(Arc::clone(&served)))),
            None => self.loader.models.put(&served),
        }
        self.load(Wanted { served, base, before });
    }

    fn load(&mut self, wanted: Wanted) {
        let name = wanted.served.name().to_owned();
        // What was loaded under the name until now is given up, or is done.
        let given_up = self.loads.remove(&name);
        let load = self.loader.start(wanted, given_up);
        self.loads.insert(name, load);
    }
}

// === free functions ===

/// Puts a policy in force for every version of the model that it is for.
async fn follow_policy(models: &ServedModels, name: &str, news: &News) {
    let Ok(current) = models.get(name) else { return };
    match news {
        News::Good { policy, serving } => {
            let fits = policy::fits(policy, current.contract.serving.output.dimensions);
            match (fits, serving) {
                (Ok(()), _) => put_in_force(&current, policy).await,
                // It comes with another version, and is for that.
                (Err(_), Ok(_)) => {}
                (Err(refusal), Err(_)) => stay(&current, Reload::Refused, &refusal.to_string()),
            }
            // That may have taken its time, and another version may have taken over meanwhile.
            let Ok(current) = models.get(name) else { return };
            follow_where_it_fits(&current, policy).await;
            if let Some(Next::Version(next)) = current.next().as_deref() {
                follow_where_it_fits(next, policy).await;
            }
        }
        News::Bad { outcome, sentence } => stay(&current, *outcome, sentence),
    }
}

/// Puts a policy in force for a version that came by itself, where it is for that.
async fn follow_where_it_fits(model: &ServedModel, policy: &CachePolicy) {
    let fits = policy::fits(policy, model.contract.serving.output.dimensions).is_ok();
    if fits && model.policy.load().cache != *policy {
        model.follow(policy.clone()).await;
    }
}

async fn put_in_force(model: &ServedModel, policy: &CachePolicy) {
    if model.policy.load().cache != *policy {
        model.follow(policy.clone()).await;
        model.metrics.policy.count(Reload::Applied);
        let (hash, policy) = {
            let policy = model.policy.load();
            (policy.hash.clone(), policy.cache.to_json())
        };
        info!(model = model.name(), hash, policy, "follows another cache policy");
        warn_of_epoch(model);
    } else if !model.policy.trouble().is_empty() {
        info!(model = model.name(), "the file of its cache policy is good again");
    }
    model.policy.set_trouble(String::new());
}

fn stay(model: &ServedModel, outcome: Reload, sentence: &str) {
    model.metrics.policy.count(outcome);
    warn!(model = model.name(), "the cache policy stays as it was: {sentence}");
    model.policy.set_trouble(format!("the cache policy stays as it was: {sentence}"));
}

/// A policy may ask for an epoch that fell, which is never followed.
fn warn_of_epoch(model: &ServedModel) {
    let status = model.runtime().ok().map(|runtime| runtime.cache.status());
    if let Some(refused) = status.and_then(|status| status.epoch_refused) {
        warn!(model = model.name(), "{refused}");
    }
}
