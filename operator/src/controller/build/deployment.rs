//! The pods that serve a model. They meet Pod Security's `restricted`, and name no user: the image does.

use std::collections::BTreeMap;

use super::{ValidatedModel, metadata, mounts, service::GRPC, volumes, with};
use crate::{
    names::{CONTAINER, PODS_HASH},
    settings::Settings,
};
use embark_crds::{
    contract::{ADMIN_PORT, GRPC_PORT, files},
    digest,
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, Container, ContainerPort, HTTPGetAction, PodSecurityContext, PodSpec,
            PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

/// The name of the port of probes, metrics and status.
pub(super) const ADMIN: &str = "admin";
/// The container that `kubectl logs` and `kubectl exec` mean.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// How long a pod serves on after it was told to end: until its address is gone from every client's list.
const DRAIN_WAIT_SECONDS: i64 = 5;
/// How long calls, the batch under way and the write of the cache may take after that, each at most.
const CLOSE_SECONDS: i64 = 55;
/// How long a process may take to answer at all, in probes of 1 s. It answers long before its model is loaded.
const STARTUP_PROBES: i32 = 60;
/// Fields of a spec that other children are made of.
const OF_NO_POD: [&str; 4] = ["replicas", "autoscaling", "disruptionBudget", "networkPolicy"];
/// Fields of a spec's cache that pods are made of; the others they follow while they run.
const OF_PODS_IN_CACHE: [&str; 3] = ["mode", "memory", "disk"];
/// Revisions that can be rolled back to. Each keeps its contract.
pub(crate) const REVISIONS: usize = 2;

pub(super) fn build(model: &ValidatedModel, settings: &Settings) -> Deployment {
    let names = model.names();
    let one = |number| Some(IntOrString::Int(number));
    let made_of = with(BTreeMap::new(), PODS_HASH, &pods_hash(model));
    Deployment {
        metadata: ObjectMeta { annotations: Some(made_of), ..metadata(model, names.main()) },
        spec: Some(DeploymentSpec {
            revision_history_limit: i32::try_from(REVISIONS).ok(),
            selector: LabelSelector {
                match_labels: Some(names.selector()),
                ..LabelSelector::default()
            },
            // A pod that goes takes its cache along: the next one is ready before.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: one(1),
                    max_unavailable: one(0),
                }),
            }),
            template: template(model, settings),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// The hash of what the spec says of pods, in the user's words: those of another operator are the same.
fn pods_hash(model: &ValidatedModel) -> String {
    let mut said = serde_json::to_value(&model.spec).expect("it is plain data with text keys");
    if let Some(fields) = said.as_object_mut() {
        fields.retain(|field, _| !OF_NO_POD.contains(&field.as_str()));
    }
    if let Some(fields) = said["cache"].as_object_mut() {
        fields.retain(|field, _| OF_PODS_IN_CACHE.contains(&field.as_str()));
    }
    digest::of_part(&said.to_string())
}

fn template(model: &ValidatedModel, settings: &Settings) -> PodTemplateSpec {
    let pod = &model.spec.pod;
    // The selector's labels are last: no label of the user's may take a pod out of its Service.
    let mut labels = pod.labels.clone();
    labels.extend(model.names().labels());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(with(pod.annotations.clone(), DEFAULT_CONTAINER, CONTAINER)),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(model, settings)),
    }
}

fn pod_spec(model: &ValidatedModel, settings: &Settings) -> PodSpec {
    let pod = &model.spec.pod;
    let account = pod.service_account_name.clone().unwrap_or_else(|| model.names().main());
    PodSpec {
        containers: vec![container(model, settings)],
        volumes: Some(volumes::volumes(model)),
        service_account_name: Some(account),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(DRAIN_WAIT_SECONDS + CLOSE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: filled(&pod.image_pull_secrets),
        node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
        tolerations: filled(&pod.tolerations),
        affinity: pod.affinity.clone(),
        topology_spread_constraints: filled(&pod.topology_spread_constraints),
        priority_class_name: pod.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(model: &ValidatedModel, settings: &Settings) -> Container {
    let pod = &model.spec.pod;
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(pod.image.clone().unwrap_or_else(|| settings.sidecar_image.clone())),
        args: Some(arguments(model)),
        env: filled(&pod.env),
        ports: Some(vec![port(GRPC, GRPC_PORT), port(ADMIN, ADMIN_PORT)]),
        // Often: no traffic comes before it has passed, and the first look is mostly too early.
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(STARTUP_PROBES),
            ..probe("/live")
        }),
        liveness_probe: Some(Probe { failure_threshold: Some(3), ..probe("/live") }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            failure_threshold: Some(2),
            ..probe("/ready")
        }),
        resources: Some(resources(model)),
        // What ended a process stands in the pod's status, where the operator finds it.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(volumes::mounts(model)),
        ..Container::default()
    }
}

fn arguments(model: &ValidatedModel) -> Vec<String> {
    let everywhere = |port: u16| format!("[::]:{port}");
    let words = [
        "serve".to_owned(),
        format!("--models-dir={}", files::MODELS_DIR),
        format!("--data-dir={}", files::DATA_DIR),
        format!("--listen={}", everywhere(GRPC_PORT)),
        format!("--admin-listen={}", everywhere(ADMIN_PORT)),
        format!("--drain-wait={DRAIN_WAIT_SECONDS}s"),
        "--log-format=json".to_owned(),
    ];
    let (_, endpoint) = mounts::of_endpoint(model);
    words.into_iter().chain(endpoint).collect()
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(10),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

/// What a user asks for, over what is always asked for. Memory is limited to what is requested: a node that runs out of it
/// takes others' pods away. The CPU is not limited: an idle core serves nobody.
fn resources(model: &ValidatedModel) -> ResourceRequirements {
    let asked = model.spec.pod.resources.clone().unwrap_or_default();
    let mut requests: BTreeMap<String, Quantity> = [
        ("cpu", Quantity("500m".to_owned())),
        ("memory", Quantity("512Mi".to_owned())),
        ("ephemeral-storage", volumes::quantity(volumes::ephemeral_bytes(model))),
    ]
    .map(|(name, quantity)| (name.to_owned(), quantity))
    .into();
    let mut limits = asked.limits.unwrap_or_default();
    // As Kubernetes does it: a limit alone is a request too.
    requests.extend(limits.clone());
    requests.extend(asked.requests.unwrap_or_default());
    if let Some(memory) = requests.get("memory") {
        limits.entry("memory".to_owned()).or_insert_with(|| memory.clone());
    }
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: asked.claims }
}

/// A list that is left out when it is empty: an empty one would be ours.
fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
