//! What is said of a model, of what was seen of it.

use embark_crds::contract::report::{
    CacheReport, DiskReport, DiskState, MemoryReport, ModelReport, ModelState, QueueReport,
    RecentReport,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use super::*;
use crate::controller::validate::validate;

const SPACE: &str = "the space";

#[test]
fn a_model_whose_pods_serve_is_ready() {
    let status = said(deployment(2, 2, 2), vec![ready("a"), ready("b")]);
    let found = condition(&status, "Ready");
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("True", "Serving"));
    assert_eq!(found.message, "2 of 2 pods are available");
    assert_eq!(condition(&status, "ModelVerified").status, "True");
    assert_eq!(condition(&status, "Progressing").status, "False");
    assert_eq!(status.address.as_deref(), Some("m.models.svc:8081"));
}

#[test]
fn the_words_of_a_pod_that_failed_outweigh_those_that_serve() {
    let failed = pod("b", ModelState::Failed, "spec.model.source.sha256: is another");
    let status = said(rolling(deployment(1, 1, 1)), vec![ready("a"), failed]);
    for type_ in ["Ready", "ModelVerified"] {
        let found = condition(&status, type_);
        assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "ModelFailed"));
        assert_eq!(found.message, "pod b: spec.model.source.sha256: is another");
    }
    assert_eq!(condition(&status, "Available").status, "True");
}

#[test]
fn a_pod_that_does_not_run_says_so_in_the_clusters_words() {
    let trouble = Some("ImagePullBackOff: no such image".to_owned());
    let stuck = PodView { name: "b".to_owned(), trouble, report: None };
    let status = said(deployment(1, 1, 0), vec![stuck]);
    let found = condition(&status, "Ready");
    assert_eq!(found.reason, "PodFailed");
    assert_eq!(found.message, "pod b: ImagePullBackOff: no such image");
}

#[test]
fn a_pod_that_is_busy_says_with_what() {
    let status = said(deployment(1, 1, 0), vec![pod("a", ModelState::Fetching, "")]);
    let found = condition(&status, "Ready");
    assert_eq!((found.reason.as_str(), found.message.as_str()), ("RollingOut", "pod a: fetching"));
    assert_eq!(condition(&status, "ModelVerified").status, "Unknown");
}

#[test]
fn a_pod_that_cannot_be_asked_is_named_with_its_port() {
    let unheard = PodView { report: Some(Err("no connection".to_owned())), ..ready("a") };
    let status = said(deployment(1, 1, 0), vec![unheard]);
    for type_ in ["Ready", "ModelVerified"] {
        let found = condition(&status, type_);
        assert_eq!(found.message, "pod a: could not be asked at port 8082: no connection");
    }
}

#[test]
fn more_pods_on_their_way_leave_a_model_ready() {
    let status = said(deployment(3, 3, 2), vec![ready("a"), ready("b")]);
    assert_eq!(condition(&status, "Ready").status, "True");
}

#[test]
fn one_that_cannot_be_scheduled_leaves_a_model_ready_that_is_served() {
    let trouble = Some("cannot be scheduled: no node has room".to_owned());
    let stuck = PodView { name: "c".to_owned(), trouble, report: None };
    let status = said(deployment(3, 3, 2), vec![ready("a"), ready("b"), stuck]);
    assert_eq!(condition(&status, "Ready").status, "True");
}

#[test]
fn pods_that_the_cluster_refuses_are_told_of_in_its_words() {
    let mut refused = deployment(1, 0, 0);
    let failure = json!([{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods \"m-1\" is forbidden: exceeded quota",
    }]);
    refused.status.as_mut().unwrap().conditions = serde_json::from_value(failure).unwrap();
    let status = said(refused, Vec::new());
    let found = condition(&status, "Ready");
    assert_eq!(found.reason, "PodsRefused");
    assert_eq!(found.message, "pods \"m-1\" is forbidden: exceeded quota");
}

#[test]
fn hits_are_those_of_all_pods_and_worth_a_write() {
    let hitting = |name: &str, hits, items| caching(name, cache(hits, items));
    let percent = |pods| said(deployment(2, 2, 2), pods).cache.unwrap().hit_percent;
    assert_eq!(percent(vec![hitting("a", 90, 100), hitting("b", 0, 0)]), Some(90));
    assert_eq!(percent(vec![hitting("a", 90, 100), hitting("b", 10, 300)]), Some(25));
    assert_eq!(percent(vec![hitting("a", 0, 0)]), None);
    let of = |hits| said(deployment(1, 1, 1), vec![hitting("a", hits, 100)]);
    assert!(!is_same(&of(10), &of(20)));
    let mut grown = of(10);
    grown.cache.as_mut().unwrap().entries += 1;
    assert!(is_same(&of(10), &grown));
}

#[test]
fn a_disk_that_remembers_nothing_is_told_of_in_the_pods_words_and_leaves_the_model_ready() {
    let mut degraded = cache(0, 0);
    degraded.disk.state = DiskState::Degraded;
    degraded.disk.message = "No space left on device (os error 28)".to_owned();
    // It outweighs a policy that is not followed.
    degraded.message = "the epoch is lower than before".to_owned();
    let status = said(deployment(2, 2, 2), vec![caching("a", cache(0, 0)), caching("b", degraded)]);
    let found = condition(&status, "CacheHealthy");
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "DiskDegraded"));
    assert_eq!(found.message, "pod b: No space left on device (os error 28)");
    assert_eq!(condition(&status, "Ready").reason, "Serving");
}

#[test]
fn a_policy_that_a_pod_refuses_is_told_of_in_its_words() {
    let mut refusing = cache(0, 0);
    refusing.message = "spec.cache.epoch: 1 is lower than 2".to_owned();
    let status = said(deployment(2, 2, 2), vec![caching("a", refusing), caching("b", cache(0, 0))]);
    let found = condition(&status, "CacheHealthy");
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "PolicyRefused"));
    assert_eq!(found.message, "pod a: spec.cache.epoch: 1 is lower than 2");
    assert_eq!(condition(&status, "Ready").reason, "Serving");
}

#[test]
fn caches_are_healthy_when_no_pod_complains_and_unknown_when_none_has_told() {
    let status = said(deployment(2, 2, 2), vec![caching("a", cache(0, 0)), ready("b")]);
    let found = condition(&status, "CacheHealthy");
    assert_eq!((found.status.as_str(), found.message.as_str()), ("True", "healthy in 1 pods"));
    let status = said(deployment(1, 1, 1), vec![ready("b")]);
    let found = condition(&status, "CacheHealthy");
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("Unknown", "NoReport"));
}

#[test]
fn words_that_are_too_long_end_where_it_can_be_seen() {
    let long = format!("no such layer {}", "é".repeat(3000));
    let status = said(deployment(1, 1, 0), vec![pod("a", ModelState::Failed, &long)]);
    for type_ in ["Ready", "ModelVerified"] {
        let message = &condition(&status, type_).message;
        assert_eq!(message.chars().count(), 1024);
        assert!(message.starts_with("pod a: no such layer éé") && message.ends_with("éé…"));
    }
}

#[test]
fn a_model_that_is_paused_keeps_what_was_said_of_it() {
    let (mut model, deployment) = (model(), deployment(1, 1, 1));
    model.status = Some(said(deployment.clone(), vec![ready("a")]));
    model.metadata.generation = Some(4);
    let paused = of_paused(&model, Some(&deployment), Timestamp::UNIX_EPOCH);
    assert_eq!((paused.observed_generation, paused.ready_replicas), (Some(3), Some(1)));
    assert_eq!(condition(&paused, "Progressing").reason, "Paused");
    assert_eq!(condition(&paused, "Ready").reason, "Serving");
    assert_eq!(condition(&paused, "ModelVerified").status, "True");
    model.status = None;
    let never_applied = of_paused(&model, None, Timestamp::UNIX_EPOCH);
    assert_eq!(condition(&never_applied, "Ready").reason, "Paused");
}

#[test]
fn conditions_of_others_are_left_to_them() {
    let other = Condition {
        type_: "Audited".to_owned(),
        status: "True".to_owned(),
        reason: "Auditor".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    assert_eq!(merge(&[other], None, Vec::new(), Timestamp::UNIX_EPOCH), []);
}

#[test]
fn no_pods_wanted_is_no_model_served() {
    let status = said(deployment(0, 0, 0), Vec::new());
    let found = condition(&status, "Ready");
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "ScaledToZero"));
}

#[test]
fn a_condition_that_stays_keeps_its_time() {
    let (first, later) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(2).unwrap());
    let verdict = |holds| vec![Verdict::new("Ready", Some(holds), "Reason", "words")];
    let before = merge(&[], None, verdict(true), first);
    let time = |holds| merge(&before, None, verdict(holds), later)[0].last_transition_time.0;
    assert_eq!((time(true), time(false)), (first, later));
}

fn model() -> EmbeddingModel {
    let digest = "0".repeat(64);
    let value = json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": "m", "namespace": "models", "uid": "1", "generation": 3 },
        "spec": {
            "model": {
                "source": { "uri": "https://example.com/m.onnx", "sha256": digest },
                "output": { "dimensions": 4 },
            },
            "input": { "text": { "tokenizer": { "uri": "https://example.com/t.json", "sha256": digest } } },
        },
    });
    serde_json::from_value(value).unwrap()
}

fn said(deployment: Deployment, pods: Vec<PodView>) -> EmbeddingModelStatus {
    let model = model();
    let validated = validate(&model).unwrap();
    let space = validated.space.to_string();
    let pods = pods.into_iter().map(|mut pod| {
        if let Some(Ok(report)) = &mut pod.report {
            report.space_id.clone_from(&space);
        }
        pod
    });
    let observed = Observed {
        validated: &validated,
        deployment: &deployment,
        pods: pods.collect(),
        waits: false,
    };
    let status = of_applied(&model, &observed, Timestamp::UNIX_EPOCH);
    assert_eq!(status.observed_generation, Some(3));
    status
}

fn condition<'a>(status: &'a EmbeddingModelStatus, type_: &str) -> &'a Condition {
    status.conditions.iter().find(|condition| condition.type_ == type_).unwrap()
}

fn deployment(wanted: i32, updated: i32, available: i32) -> Deployment {
    let there = updated;
    serde_json::from_value(json!({
        "metadata": { "generation": 1 },
        "spec": { "replicas": wanted, "selector": {}, "template": {} },
        "status": {
            "observedGeneration": 1,
            "replicas": there,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
        },
    }))
    .unwrap()
}

/// With a pod of an older revision beside its own.
fn rolling(mut deployment: Deployment) -> Deployment {
    let status = deployment.status.as_mut().unwrap();
    status.replicas = status.replicas.map(|replicas| replicas + 1);
    deployment
}

fn ready(name: &str) -> PodView {
    pod(name, ModelState::Ready, "")
}

fn caching(name: &str, cache: CacheReport) -> PodView {
    let mut pod = ready(name);
    pod.report.as_mut().unwrap().as_mut().unwrap().cache = Some(cache);
    pod
}

fn cache(hits: u64, items: u64) -> CacheReport {
    let off = DiskReport { state: DiskState::Off, message: String::new(), bytes: 0, size_limit: 0 };
    CacheReport {
        epoch: 0,
        message: String::new(),
        recent: RecentReport { hits, items, hit_percent: None },
        memory: MemoryReport::default(),
        disk: off,
    }
}

fn pod(name: &str, state: ModelState, message: &str) -> PodView {
    let report = ModelReport {
        name: "m".to_owned(),
        state,
        message: message.to_owned(),
        space_id: SPACE.to_owned(),
        model_digest: String::new(),
        dimensions: 4,
        policy_hash: String::new(),
        queue: QueueReport::default(),
        merging: None,
        cache: None,
        next: None,
    };
    PodView { name: name.to_owned(), trouble: None, report: Some(Ok(report)) }
}
