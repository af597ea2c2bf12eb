//! What the pods of models say of themselves: the leader asks each at `/status` of its admin port. The answers are from
//! outside: bounded in time and size, and cleaned before they are passed on.

mod reports;

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use embark_crds::contract::{
    ADMIN_PORT,
    report::{ModelReport, ModelState, Report},
};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

pub(crate) use self::reports::Reports;
use self::reports::{Said, hits};
use crate::{children::Children, kube_ext::Guarded, metrics::Metrics, names, words::cleaned};

/// How often the poller looks for pods that are due.
const TICK: Duration = Duration::from_secs(1);
/// How often a pod is asked that is ready.
const SETTLED_EVERY: Duration = Duration::from_secs(15);
/// How often a pod is asked that is not: somebody may be waiting for its words.
const UNSETTLED_EVERY: Duration = Duration::from_secs(2);
/// The longest that a pod rests that does not answer.
const SILENT_EVERY: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Polls in a row that a pod has to miss before what it said counts no more.
const MISSED: u32 = 4;
/// The most bytes of an answer.
const ANSWER_BYTES: usize = 256 * 1024;
/// Pods that are asked at a time. As many that do not answer, each of which rests ever longer, do not hold up the others.
const AT_A_TIME: usize = 64;
/// By how many percent pods are asked later than they might be, so that those that were asked together are not again.
const JITTER: u64 = 20;
/// The most characters of a name or a digest in a pod's answer.
const TOKEN: usize = 128;
/// Models that may wait for a reconcile. Those that find no place are told of by the next poll.
pub(crate) const WAITING: usize = 1024;

/// Asks pods.
pub(crate) struct Poller {
    children: Arc<Children>,
    reports: Arc<Reports>,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    changed: mpsc::Sender<ObjectRef<Guarded>>,
}

/// Why no pod can be asked.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the client that asks pods")]
pub(crate) struct ClientError(#[source] reqwest::Error);

// === impl Poller ===

impl Poller {
    pub(crate) fn new(
        children: Arc<Children>,
        reports: Arc<Reports>,
        metrics: Arc<Metrics>,
        changed: mpsc::Sender<ObjectRef<Guarded>>,
    ) -> Result<Self, ClientError> {
        // A pod is reached directly, and what it answers is all that it has to say.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_WITHIN)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(ClientError)?;
        Ok(Poller { children, reports, client, metrics, changed })
    }

    /// Asks until it is dropped.
    pub(crate) async fn run(self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut asks, mut asked) = (FuturesUnordered::new(), BTreeSet::new());
        let mut due = VecDeque::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => due = self.due(),
                Some(uid) = asks.next(), if !asks.is_empty() => {
                    asked.remove(&uid);
                }
            }
            while asks.len() < AT_A_TIME
                && let Some((uid, pod)) = due.pop_front()
            {
                if asked.insert(uid.clone()) {
                    asks.push(self.ask(pod).map(|()| uid));
                }
            }
        }
    }

    /// The pods that are to be asked, by their uid, those that have waited longest first.
    fn due(&self) -> VecDeque<(String, Arc<Pod>)> {
        let mut pods = self.children.all::<Pod>();
        pods.retain(|pod| !has_ended(pod));
        self.reports.keep(&pods.iter().filter_map(|pod| pod.uid()).collect());
        let now = Instant::now();
        pods.retain(|pod| is_running(pod) && self.reports.is_due(pod, now));
        let mut due: Vec<_> = pods.into_iter().filter_map(|pod| Some((pod.uid()?, pod))).collect();
        due.sort_by_cached_key(|(uid, _)| self.reports.next(uid));
        due.into()
    }

    async fn ask(&self, pod: Arc<Pod>) {
        let (Some(uid), Some(address), Some(model), Some(namespace)) =
            (pod.uid(), address(&pod), names::model_of(pod.labels()), pod.namespace())
        else {
            return;
        };
        let answer = self.fetch(address).await;
        self.metrics.polled(answer.is_ok());
        let report = answer.and_then(|report| of_model(report, model));
        let is_settled = report.as_ref().is_ok_and(|report| report.state == ModelState::Ready);
        let wait = if is_settled { SETTLED_EVERY } else { rest(self.reports.missed(&uid)) };
        let told_hits = hits(&report);
        let (at, version) = (Instant::now(), pod.resource_version());
        let next = at + jittered(wait, &uid);
        let said = Said { report, at, next, version, missed: 0, is_owed: false, told_hits };
        let model = ObjectRef::new(model).within(&namespace);
        if self.reports.note(&uid, &model, said) && self.changed.try_send(model).is_err() {
            self.reports.owe(&uid);
        }
    }

    async fn fetch(&self, address: &str) -> Result<Report, String> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let url = format!("http://{host}:{ADMIN_PORT}/status");
        let failed = |error: reqwest::Error| {
            let cause = if error.is_timeout() { "no answer in time" } else { "no connection" };
            cause.to_owned()
        };
        let mut answer = self.client.get(url).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("answered {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(format!("answered with more than {ANSWER_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| "answered with no report".to_owned())
    }
}

// === free functions ===

/// How long a pod rests that is not ready, or that has not answered as many times in a row.
fn rest(missed: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(missed.saturating_sub(MISSED));
    UNSETTLED_EVERY.saturating_mul(doubled).min(SILENT_EVERY)
}

fn jittered(wait: Duration, uid: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let percent = u32::try_from(hasher.finish() % JITTER).unwrap_or_default();
    wait + wait * percent / 100
}

/// What a pod says of a model: what is read of it, and no more.
fn of_model(report: Report, model: &str) -> Result<ModelReport, String> {
    let found = report.models.into_iter().find(|report| report.name == model);
    let mut report = found.ok_or_else(|| "does not serve the model".to_owned())?;
    report.message = cleaned(&report.message);
    for token in [&mut report.space_id, &mut report.model_digest, &mut report.policy_hash] {
        *token = token.chars().take(TOKEN).collect();
    }
    (report.queue, report.merging, report.next) = (Default::default(), None, None);
    if let Some(cache) = &mut report.cache {
        cache.message = cleaned(&cache.message);
        cache.disk.message = cleaned(&cache.disk.message);
    }
    Ok(report)
}

/// Whether a pod is nothing but a record any more, such as one that was evicted.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_pods_are_asked_ever_less_often() {
        assert_eq!([0, MISSED].map(rest), [UNSETTLED_EVERY; 2]);
        assert_eq!(rest(MISSED + 2), 4 * UNSETTLED_EVERY);
        assert_eq!([MISSED + 5, u32::MAX].map(rest), [SILENT_EVERY; 2]);
    }

    #[test]
    fn pods_that_are_asked_together_are_not_again() {
        let waits = ["a", "b", "c"].map(|uid| jittered(SETTLED_EVERY, uid));
        assert!(waits.iter().all(|wait| (SETTLED_EVERY..2 * SETTLED_EVERY).contains(wait)));
        assert!(waits[0] != waits[1] || waits[1] != waits[2]);
    }
}
