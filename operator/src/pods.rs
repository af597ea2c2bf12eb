//! What the pods of models say of themselves: the leader asks each at `/status` of its admin port. The answers are from
//! outside: bounded in time and size, and cleaned before they are passed on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use embark_crds::contract::{
    ADMIN_PORT,
    report::{ModelReport, ModelState, Report},
};
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    children::{Children, Guarded},
    controller::names,
    metrics::Metrics,
};

/// How often the poller looks for pods that are due.
const TICK: Duration = Duration::from_secs(1);
/// How often a pod is asked that is ready.
const SETTLED_EVERY: Duration = Duration::from_secs(15);
/// How often a pod is asked that is not: somebody may be waiting for its words.
const UNSETTLED_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Polls in a row that a pod has to miss before what it said counts no more.
const MISSED: u32 = 4;
/// The most bytes of an answer.
const ANSWER_BYTES: usize = 256 * 1024;
/// Pods that are asked at a time.
const AT_A_TIME: usize = 16;
/// The most characters of a pod's words.
const WORDS: usize = 1024;
/// Models that may wait for a reconcile. When there are more, the next poll tells of them again.
pub(crate) const WAITING: usize = 1024;

/// How often numbers that always move, such as the share of hits, are worth a reconcile of their model.
const NUMBERS_EVERY: Duration = Duration::from_secs(60);

/// What each pod said last, by its uid.
#[derive(Default)]
pub(crate) struct Reports {
    said: Mutex<BTreeMap<String, Said>>,
    /// When the numbers of a model were told of last.
    numbers: Mutex<HashMap<ObjectRef<Guarded>, Instant>>,
}

/// What a pod said.
#[derive(Clone, Debug)]
struct Said {
    report: Result<ModelReport, String>,
    /// When it was asked.
    at: Instant,
    /// When it is to be asked again.
    next: Instant,
    /// Polls in a row that it has not answered.
    missed: u32,
    /// The share of hits that its model was last reconciled for.
    told_hits: Option<u8>,
}

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

// === impl Reports ===

impl Reports {
    /// What the pod of that uid said last; an error says why it said nothing. `None`: it was not asked yet.
    pub(crate) fn of(&self, uid: &str) -> Option<Result<ModelReport, String>> {
        self.said.lock().get(uid).map(|said| said.report.clone())
    }

    fn is_due(&self, uid: &str, now: Instant) -> bool {
        self.said.lock().get(uid).is_none_or(|said| said.next <= now)
    }

    /// Notes what a pod of a model said, and tells whether it is something new.
    fn note(&self, uid: &str, model: &ObjectRef<Guarded>, said: Said) -> bool {
        let mut reports = self.said.lock();
        let Some(before) = reports.get_mut(uid) else {
            reports.insert(uid.to_owned(), said);
            return true;
        };
        before.next = said.next;
        before.missed = if said.report.is_ok() { 0 } else { before.missed + 1 };
        // A pod that is busy may miss a poll; what it said before is the best that is known.
        if before.report.is_ok() && (1..MISSED).contains(&before.missed) {
            return false;
        }
        let is_new = gist(&before.report) != gist(&said.report);
        let hits = hits(&said.report);
        before.report = said.report;
        let is_told =
            is_new || before.told_hits != hits && self.is_time_for_numbers(model, said.at);
        if is_told {
            before.told_hits = hits;
        }
        is_told
    }

    fn is_time_for_numbers(&self, model: &ObjectRef<Guarded>, now: Instant) -> bool {
        let mut numbers = self.numbers.lock();
        // Older ones say no more than none does, and those of models that are gone go with them.
        numbers.retain(|_, told| now < *told + NUMBERS_EVERY);
        let is_time = !numbers.contains_key(model);
        if is_time {
            numbers.insert(model.clone(), now);
        }
        is_time
    }

    /// Forgets the pods that are gone.
    fn keep(&self, uids: &BTreeSet<String>) {
        self.said.lock().retain(|uid, _| uids.contains(uid));
    }
}

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
        loop {
            ticks.tick().await;
            let mut pods = self.children.all::<Pod>();
            pods.retain(|pod| !has_ended(pod));
            self.reports.keep(&pods.iter().filter_map(|pod| pod.uid()).collect());
            let now = Instant::now();
            let due = pods.iter().filter(|pod| {
                is_running(pod) && pod.uid().is_some_and(|uid| self.reports.is_due(&uid, now))
            });
            stream::iter(due).for_each_concurrent(AT_A_TIME, |pod| self.ask(pod)).await;
        }
    }

    async fn ask(&self, pod: &Pod) {
        let (Some(uid), Some(address), Some(model), Some(namespace)) =
            (pod.uid(), address(pod), names::model_of(pod.labels()), pod.namespace())
        else {
            return;
        };
        let answer = self.fetch(address).await;
        self.metrics.polled(answer.is_ok());
        let report = answer.and_then(|report| of_model(report, model));
        let is_settled = report.as_ref().is_ok_and(|report| report.state == ModelState::Ready);
        let wait = if is_settled { SETTLED_EVERY } else { UNSETTLED_EVERY };
        let told_hits = hits(&report);
        let at = Instant::now();
        let said = Said { report, at, next: at + wait, missed: 0, told_hits };
        let model = ObjectRef::new(model).within(&namespace);
        if self.reports.note(&uid, &model, said) {
            // Full: the model waits already, or will be told of by the next poll.
            let _ = self.changed.try_send(model);
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

/// Another's words made fit for a condition: one line, no control characters, cut to a readable length.
pub(crate) fn cleaned(words: &str) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let line: Vec<&str> = words.split(blank).filter(|word| !word.is_empty()).collect();
    let line = line.join(" ");
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn of_model(report: Report, model: &str) -> Result<ModelReport, String> {
    let found = report.models.into_iter().find(|report| report.name == model);
    let mut report = found.ok_or_else(|| "does not serve the model".to_owned())?;
    report.message = cleaned(&report.message);
    if let Some(cache) = &mut report.cache {
        cache.message = cleaned(&cache.message);
        cache.disk.message = cleaned(&cache.disk.message);
    }
    Ok(report)
}

/// What of a report is worth a reconcile: numbers that always move are not.
fn gist(report: &Result<ModelReport, String>) -> Result<ModelReport, String> {
    let mut report = report.clone()?;
    report.queue = Default::default();
    if let Some(cache) = &mut report.cache {
        cache.recent = Default::default();
        cache.memory = Default::default();
        cache.disk.bytes = 0;
    }
    Ok(report)
}

/// The share of hits, in percent.
fn hits(report: &Result<ModelReport, String>) -> Option<u8> {
    report.as_ref().ok()?.cache.as_ref()?.recent.hit_percent
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
    use embark_crds::contract::report::{CacheReport, DiskReport, DiskState, RecentReport};

    use super::*;

    #[test]
    fn hits_that_move_are_told_of_once_a_minute_and_none_is_forgotten() {
        let (reports, begin) = (Reports::default(), Instant::now());
        let model = ObjectRef::new("m").within("models");
        let note = |percent, at| reports.note("pod", &model, said(percent, at));
        assert!(note(Some(10), begin));
        assert!(note(Some(20), begin));
        assert!(!note(Some(30), begin));
        assert!(!note(None, begin));
        let later = begin + NUMBERS_EVERY;
        assert!(note(None, later));
        assert!(!note(None, later + NUMBERS_EVERY));
    }

    fn said(percent: Option<u8>, at: Instant) -> Said {
        let disk =
            DiskReport { state: DiskState::Off, message: String::new(), bytes: 0, size_limit: 0 };
        let recent = RecentReport { hits: 0, items: 0, hit_percent: percent };
        let cache = CacheReport {
            epoch: 0,
            message: String::new(),
            recent,
            memory: Default::default(),
            disk,
        };
        let report = ModelReport {
            name: "m".to_owned(),
            state: ModelState::Ready,
            message: String::new(),
            space_id: String::new(),
            model_digest: String::new(),
            dimensions: 4,
            policy_hash: String::new(),
            queue: Default::default(),
            merging: None,
            cache: Some(cache),
            next: None,
        };
        let told_hits = percent;
        Said { report: Ok(report), at, next: at, missed: 0, told_hits }
    }

    #[test]
    fn words_are_one_line_without_control_characters() {
        let words = format!("spec.model:\n\u{1b}[31m is\u{0} bad {}", "x".repeat(2 * WORDS));
        let cleaned = cleaned(&words);
        assert!(cleaned.starts_with("spec.model: [31m is bad x") && cleaned.ends_with('…'));
        assert_eq!(cleaned.chars().count(), WORDS + 1);
    }
}
