//! The sidecar of an application's pod: the container, and what is mounted into it. Pure: the same pod and models give the same.

use std::collections::BTreeMap;

use embark_crds::{
    contract::{
        INJECTED_ADMIN_PORT, INJECTED_GRPC_PORT,
        files::{
            self, CA_DIR, CA_FILE, DATA_DIR, MODELS_DIR, POLICY_DIR, SECRETS_DIR, SERVING_DIR,
            SOCKET_DIR, SOCKET_FILE,
        },
    },
    resolve::quantity,
    v1alpha1::CacheMode,
};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
        HTTPGetAction, KeyToPath, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource,
        SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{asked::Asked, models::Model};
use crate::names::Names;

/// The container.
pub(super) const CONTAINER: &str = "embark-sidecar";
/// The volume of the socket, which every container has.
pub(super) const SOCKET_VOLUME: &str = "embark-socket";
/// The volume of fetched files and the disk cache.
const DATA_VOLUME: &str = "embark-data";
/// The empty volume in the place of the pod's token.
const NO_TOKEN_VOLUME: &str = "embark-no-token";
/// Where Kubernetes mounts a pod's token. A container with a mount there gets none.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// One MiB, in bytes.
const MIB: u64 = 1024 * 1024;
/// The least memory of a sidecar.
const LEAST_MEMORY: u64 = 256 * MIB;
/// What the process needs itself, as it counts it.
const PROCESS: u64 = 32 * MIB;
/// What a disk tier needs, as the process counts it.
const DISK_TIER: u64 = 32 * MIB;
/// What is set aside for a model's files, of which nobody but the pod knows the size.
const FILES: u64 = 64 * MIB;

/// Probes of 1 s until the process must have answered at all.
const STARTUP_PROBES: i32 = 60;
/// The same while the application waits for the models: an hour for what is to be fetched and tried out.
const WAITING_PROBES: i32 = 3600;
/// The user of the image.
const USER: i64 = 65532;

/// What is added to a pod.
#[derive(Clone, Debug)]
pub(super) struct Sidecar {
    pub(super) container: Container,
    pub(super) volumes: Vec<Volume>,
}

/// Which image runs, and beside whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs<'a> {
    pub(super) image: &'a str,
    pub(super) user: PodUser,
}

/// Whom the pod's containers run as unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodUser {
    Root,
    Other,
}

/// A volume and where it is mounted.
type Mounted = (Volume, VolumeMount);

/// What a pod that asks for these models is given.
pub(super) fn build(asked: &Asked, models: &[Model], runs: Runs<'_>) -> Sidecar {
    let mut mounted = vec![
        empty(SOCKET_VOLUME, SOCKET_DIR),
        empty(DATA_VOLUME, DATA_DIR),
        read_only(empty(NO_TOKEN_VOLUME, TOKEN_DIR)),
    ];
    for (number, model) in models.iter().enumerate() {
        mounted.extend(of_model(number, model));
    }
    let (volumes, mounts) = mounted.into_iter().unzip();
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(runs.image.to_owned()),
        args: Some(arguments()),
        restart_policy: Some("Always".to_owned()),
        ports: Some(vec![ContainerPort {
            name: Some("embark-admin".to_owned()),
            container_port: i32::from(INJECTED_ADMIN_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(startup(asked.waits)),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(3),
            ..probe("/live")
        }),
        resources: Some(resources(asked, models)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(security(runs.user)),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    Sidecar { container, volumes }
}

/// Where the application finds the sidecar: variables of its containers.
pub(super) fn variables() -> [(&'static str, String); 2] {
    [
        ("EMBARK_ADDRESS", format!("127.0.0.1:{INJECTED_GRPC_PORT}")),
        ("EMBARK_SOCKET", format!("unix://{SOCKET_DIR}/{SOCKET_FILE}")),
    ]
}

/// Where a container of the application has the socket. To call it takes no right to write to its folder.
pub(super) fn socket_mount() -> VolumeMount {
    VolumeMount {
        name: SOCKET_VOLUME.to_owned(),
        mount_path: SOCKET_DIR.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn arguments() -> Vec<String> {
    vec![
        "serve".to_owned(),
        format!("--models-dir={MODELS_DIR}"),
        format!("--data-dir={DATA_DIR}"),
        format!("--socket={SOCKET_DIR}/{SOCKET_FILE}"),
        format!("--listen=127.0.0.1:{INJECTED_GRPC_PORT}"),
        format!("--admin-listen=[::]:{INJECTED_ADMIN_PORT}"),
        "--log-format=json".to_owned(),
    ]
}

/// What is mounted for one model. All of it may be missing: then the model is not served, and the application is not held up.
fn of_model(number: usize, model: &Model) -> Vec<Mounted> {
    let names = Names(&model.name);
    let place = |part: &str| format!("{MODELS_DIR}/{}/{part}", model.name);
    let mut mounted = vec![
        config_map(format!("embark-{number}-contract"), names.contract(), place(SERVING_DIR)),
        config_map(format!("embark-{number}-policy"), names.policy(), place(POLICY_DIR)),
    ];
    for (field, artifact) in model.spec.iter().flat_map(|spec| spec.artifacts()) {
        let folder = files::artifact_dir(field);
        if let Some(secret) = &artifact.secret_ref {
            let volume = Volume {
                name: format!("embark-{number}-secret-{folder}"),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(secret.name.clone()),
                    optional: Some(true),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            };
            mounted.push(read_only(at(volume, place(&format!("{SECRETS_DIR}/{folder}")))));
        }
        if let Some(bundle) = &artifact.ca_bundle_ref {
            let name = format!("embark-{number}-ca-{folder}");
            let path = place(&format!("{CA_DIR}/{folder}"));
            let (mut volume, mount) = config_map(name, bundle.name.clone(), path);
            if let Some(source) = &mut volume.config_map {
                let item =
                    KeyToPath { key: bundle.key.clone(), path: CA_FILE.to_owned(), mode: None };
                source.items = Some(vec![item]);
            }
            mounted.push((volume, mount));
        }
    }
    mounted
}

fn config_map(volume: String, name: String, path: String) -> Mounted {
    let volume = Volume {
        name: volume,
        config_map: Some(ConfigMapVolumeSource {
            name,
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    read_only(at(volume, path))
}

/// Without a limit of its size: when one is passed, the kubelet ends the whole pod, and the application with it.
fn empty(volume: &str, path: &str) -> Mounted {
    let volume = Volume {
        name: volume.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    at(volume, path.to_owned())
}

fn at(volume: Volume, path: String) -> Mounted {
    let mount =
        VolumeMount { name: volume.name.clone(), mount_path: path, ..VolumeMount::default() };
    (volume, mount)
}

fn read_only((volume, mount): Mounted) -> Mounted {
    (volume, VolumeMount { read_only: Some(true), ..mount })
}

/// The containers of the application start once this has passed.
fn startup(waits: bool) -> Probe {
    let (path, probes) = if waits { ("/ready", WAITING_PROBES) } else { ("/live", STARTUP_PROBES) };
    Probe { period_seconds: Some(1), failure_threshold: Some(probes), ..probe(path) }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(INJECTED_ADMIN_PORT)),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

/// What Pod Security's `restricted` asks for, whatever the pod's own settings are.
fn security(user: PodUser) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        // Elsewhere the image's user or the namespace's is right.
        run_as_user: (user == PodUser::Root).then_some(USER),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

/// Memory is limited to what is requested: a sidecar that takes more is ended, rather than its neighbours. The CPU is not
/// limited.
fn resources(asked: &Asked, models: &[Model]) -> ResourceRequirements {
    let memory = asked.memory.clone().unwrap_or_else(|| {
        let bytes = models.iter().map(memory_of).fold(PROCESS, u64::saturating_add);
        Quantity(format!("{}Mi", bytes.max(LEAST_MEMORY).div_ceil(MIB)))
    });
    let cpu = asked.cpu.clone().unwrap_or_else(|| Quantity("100m".to_owned()));
    let named = |name: &str, quantity: &Quantity| (name.to_owned(), quantity.clone());
    ResourceRequirements {
        requests: Some(BTreeMap::from([named("cpu", &cpu), named("memory", &memory)])),
        limits: Some(BTreeMap::from([named("memory", &memory)])),
        claims: None,
    }
}

/// What a model needs, in bytes: what its own pods are given, where it says so; else its cache, and an allowance for its files.
fn memory_of(model: &Model) -> u64 {
    let Some(spec) = &model.spec else { return FILES };
    let resources = spec.pod.resources.as_ref();
    let of = |amounts: Option<&BTreeMap<String, Quantity>>| {
        amounts.and_then(|amounts| quantity::bytes(&amounts.get("memory")?.0))
    };
    let said =
        resources.and_then(|all| of(all.limits.as_ref()).or_else(|| of(all.requests.as_ref())));
    said.unwrap_or_else(|| {
        let tier = quantity::bytes(&spec.cache.memory.size_limit.0).unwrap_or_default();
        let cache = match spec.cache.mode {
            CacheMode::Disabled => 0,
            CacheMode::Memory => tier,
            CacheMode::MemoryAndDisk => tier.saturating_add(DISK_TIER),
        };
        cache.saturating_add(FILES)
    })
}
