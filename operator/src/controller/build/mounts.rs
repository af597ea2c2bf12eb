//! What a model has of its user: Secrets, certificates and claims, mounted where the sidecar looks for them. None of it is
//! ever read here. What may be missing is optional: a pod that runs says so itself, one that hangs before it runs cannot.

use std::collections::BTreeMap;

use embark_crds::{
    contract::{
        Location,
        files::{CA_DIR, CA_FILE, MODELS_DIR, SECRETS_DIR, VOLUMES_DIR, artifact_dir},
    },
    v1alpha1::ConfigMapKeyReference,
};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, SecretVolumeSource,
    Volume, VolumeMount,
};

use super::ValidatedModel;

/// The folder of what secures the gRPC port. It is the process's, not a model's.
const ENDPOINT_DIR: &str = "/etc/embark/endpoint";
/// Its folders, and what is in them.
const TLS_DIR: &str = "tls";
const CLIENTS_DIR: &str = "clients";
const TOKEN_DIR: &str = "token";
const TOKEN_FILE: &str = "token";
/// The keys of a Secret of type kubernetes.io/tls.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Volumes of a pod, and where its container has them: folders, never a subPath, which would not follow a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounted {
    pub(crate) volumes: Vec<Volume>,
    pub(crate) mounts: Vec<VolumeMount>,
}

/// What the files of a model need. Volumes are named by the artifact and not by what they hold, whose names are too long:
/// `{prefix}secret-model`, `{prefix}ca-tokenizer`, `{prefix}claim-model`.
pub(crate) fn of_artifacts(model: &ValidatedModel, prefix: &str) -> Mounted {
    let folder = |part: &str, name: &str| format!("{MODELS_DIR}/{}/{part}/{name}", model.name);
    let (mut mounted, mut claims) = (Mounted::default(), Vec::new());
    let resolved: BTreeMap<_, _> = model.contract.serving.artifacts().collect();
    for (field, asked) in model.spec.artifacts() {
        let artifact = artifact_dir(field);
        if let Some(secret) = &asked.secret_ref {
            let volume = secret_volume(format!("{prefix}secret-{artifact}"), &secret.name, &[]);
            mounted.read(volume, folder(SECRETS_DIR, artifact));
        }
        if let Some(bundle) = &asked.ca_bundle_ref {
            let volume = bundle_volume(format!("{prefix}ca-{artifact}"), bundle);
            mounted.read(volume, folder(CA_DIR, artifact));
        }
        let location = resolved.get(field).map(|artifact| &artifact.location);
        if let Some(Location::Pvc { claim, .. }) = location
            && !claims.contains(claim)
        {
            let volume = claim_volume(format!("{prefix}claim-{artifact}"), claim);
            mounted.read(volume, folder(VOLUMES_DIR, claim));
            claims.push(claim.clone());
        }
    }
    mounted
}

/// What secures the gRPC port, and the arguments that name it. A process that has not all of it does not start.
pub(super) fn of_endpoint(model: &ValidatedModel) -> (Mounted, Vec<String>) {
    let (mut mounted, mut arguments) = (Mounted::default(), Vec::new());
    let Some(endpoint) = &model.spec.endpoint else { return (mounted, arguments) };
    let folder = |part: &str| format!("{ENDPOINT_DIR}/{part}");
    if let Some(tls) = &endpoint.tls {
        let files = [(CERTIFICATE, CERTIFICATE), (KEY, KEY)];
        let volume = secret_volume("endpoint-tls".to_owned(), &tls.secret_name, &files);
        mounted.read(volume, folder(TLS_DIR));
        arguments.push(format!("--tls-cert={}/{CERTIFICATE}", folder(TLS_DIR)));
        arguments.push(format!("--tls-key={}/{KEY}", folder(TLS_DIR)));
        if let Some(authorities) = &tls.client_ca_ref {
            let volume = bundle_volume("endpoint-clients".to_owned(), authorities);
            mounted.read(volume, folder(CLIENTS_DIR));
            arguments.push(format!("--tls-client-ca={}/{CA_FILE}", folder(CLIENTS_DIR)));
        }
    }
    if let Some(token) = &endpoint.token_secret_ref {
        let files = [(token.key.as_str(), TOKEN_FILE)];
        let volume = secret_volume("endpoint-token".to_owned(), &token.name, &files);
        mounted.read(volume, folder(TOKEN_DIR));
        arguments.push(format!("--token-file={}/{TOKEN_FILE}", folder(TOKEN_DIR)));
    }
    (mounted, arguments)
}

// === impl Mounted ===

impl Mounted {
    fn read(&mut self, volume: Volume, path: String) {
        self.mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path,
            read_only: Some(true),
            ..VolumeMount::default()
        });
        self.volumes.push(volume);
    }
}

// === free functions ===

/// Every key of a Secret, or these as these files.
fn secret_volume(name: String, secret: &str, files: &[(&str, &str)]) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        items: (!files.is_empty()).then(|| files.iter().map(|file| item(*file)).collect()),
        optional: Some(true),
        ..SecretVolumeSource::default()
    };
    Volume { name, secret: Some(source), ..Volume::default() }
}

/// One key of a ConfigMap, as the file that is looked for.
fn bundle_volume(name: String, bundle: &ConfigMapKeyReference) -> Volume {
    let source = ConfigMapVolumeSource {
        name: bundle.name.clone(),
        items: Some(vec![item((&bundle.key, CA_FILE))]),
        optional: Some(true),
        ..ConfigMapVolumeSource::default()
    };
    Volume { name, config_map: Some(source), ..Volume::default() }
}

/// No claim can be optional: until it is there no node takes the pod, which Kubernetes says. Read-only as a whole, since a
/// claim that many nodes may only read can be attached in no other way.
fn claim_volume(name: String, claim: &str) -> Volume {
    let source =
        PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: Some(true) };
    Volume { name, persistent_volume_claim: Some(source), ..Volume::default() }
}

fn item((key, path): (&str, &str)) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None }
}
