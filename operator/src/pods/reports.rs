//! What each pod said last, and what of it is worth a reconcile.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use embark_crds::contract::report::ModelReport;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{MISSED, UNSETTLED_EVERY};
use crate::kube_ext::Guarded;

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
pub(super) struct Said {
    pub(super) report: Result<ModelReport, String>,
    /// When it was asked.
    pub(super) at: Instant,
    /// When it is to be asked again.
    pub(super) next: Instant,
    /// The version of the pod that was asked.
    pub(super) version: Option<String>,
    /// Polls in a row that it has not answered.
    pub(super) missed: u32,
    /// Whether its model has not been told of what it said.
    pub(super) is_owed: bool,
    /// The share of hits that its model was last reconciled for.
    pub(super) told_hits: Option<u8>,
}

// === impl Reports ===

impl Reports {
    /// What the pod of that uid said last; an error says why it said nothing. `None`: it was not asked yet.
    pub(crate) fn of(&self, uid: &str) -> Option<Result<ModelReport, String>> {
        self.said.lock().get(uid).map(|said| said.report.clone())
    }

    /// Whether a pod is to be asked: its time has come, or it is another than the one that was asked.
    pub(super) fn is_due(&self, pod: &Pod, now: Instant) -> bool {
        let reports = self.said.lock();
        pod.metadata.uid.as_ref().and_then(|uid| reports.get(uid)).is_none_or(|said| {
            let is_changed = said.version != pod.metadata.resource_version;
            said.next <= now || is_changed && said.at + UNSETTLED_EVERY <= now
        })
    }

    /// Polls in a row that a pod has not answered.
    pub(super) fn missed(&self, uid: &str) -> u32 {
        self.said.lock().get(uid).map_or(0, |said| said.missed)
    }

    /// Nobody was told of what a pod said.
    pub(super) fn owe(&self, uid: &str) {
        if let Some(said) = self.said.lock().get_mut(uid) {
            said.is_owed = true;
        }
    }

    /// Notes what a pod of a model said, and tells whether it is something new.
    pub(super) fn note(&self, uid: &str, model: &ObjectRef<Guarded>, said: Said) -> bool {
        let mut reports = self.said.lock();
        let Some(before) = reports.get_mut(uid) else {
            reports.insert(uid.to_owned(), said);
            return true;
        };
        (before.at, before.next, before.version) = (said.at, said.next, said.version);
        before.missed = if said.report.is_ok() { 0 } else { before.missed.saturating_add(1) };
        // A pod that is busy may miss a poll; what it said before is the best that is known.
        if before.report.is_ok() && (1..MISSED).contains(&before.missed) {
            return false;
        }
        let is_new = gist(&before.report) != gist(&said.report);
        let hits = hits(&said.report);
        before.report = said.report;
        let is_told = is_new
            || std::mem::take(&mut before.is_owed)
            || before.told_hits != hits && self.is_time_for_numbers(model, said.at);
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

    /// When a pod is to be asked; `None`: it was not asked yet.
    pub(super) fn next(&self, uid: &str) -> Option<Instant> {
        self.said.lock().get(uid).map(|said| said.next)
    }

    /// Forgets the pods that are gone.
    pub(super) fn keep(&self, uids: &BTreeSet<String>) {
        self.said.lock().retain(|uid, _| uids.contains(uid));
    }
}

// === free functions ===

/// What of a report is worth a reconcile: numbers that always move are not.
fn gist(report: &Result<ModelReport, String>) -> Result<ModelReport, String> {
    let mut report = report.clone()?;
    if let Some(cache) = &mut report.cache {
        cache.recent = Default::default();
        cache.memory = Default::default();
        cache.disk.bytes = 0;
    }
    Ok(report)
}

/// The share of hits, in percent.
pub(super) fn hits(report: &Result<ModelReport, String>) -> Option<u8> {
    report.as_ref().ok()?.cache.as_ref()?.recent.hit_percent
}

#[cfg(test)]
mod tests {
    use embark_crds::contract::report::{
        CacheReport, DiskReport, DiskState, ModelState, RecentReport,
    };

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

    #[test]
    fn pod_is_asked_when_its_time_has_come_or_when_it_changed() {
        const WAIT: Duration = Duration::from_secs(60);
        let (reports, begin) = (Reports::default(), Instant::now());
        let mut pod = Pod::default();
        pod.metadata.uid = Some("pod".to_owned());
        let silent = || Said { report: Err("nothing".to_owned()), ..said(None, begin) };
        let silent = Said { next: begin + WAIT, ..silent() };
        assert!(reports.is_due(&pod, begin));
        assert!(reports.note("pod", &ObjectRef::new("m"), silent));
        assert!(!reports.is_due(&pod, begin + UNSETTLED_EVERY));
        assert!(reports.is_due(&pod, begin + WAIT));
        pod.metadata.resource_version = Some("2".to_owned());
        assert!(!reports.is_due(&pod, begin));
        assert!(reports.is_due(&pod, begin + UNSETTLED_EVERY));
    }

    #[test]
    fn what_nobody_could_be_told_of_is_told_of_again() {
        let (reports, model) = (Reports::default(), ObjectRef::new("m"));
        let now = Instant::now();
        assert!(reports.note("pod", &model, said(None, now)));
        reports.owe("pod");
        assert!(reports.note("pod", &model, said(None, now)));
        assert!(!reports.note("pod", &model, said(None, now)));
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
        Said {
            report: Ok(report),
            at,
            next: at,
            version: None,
            missed: 0,
            is_owed: false,
            told_hits,
        }
    }
}
