//! What is changed in a pod, as a JSON patch; or why nothing can be. Pure.
//!
//! A pod comes here as often as other webhooks have changed it: what is there already stays as it is, and what came meanwhile
//! is given what the others have.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};
use serde_json::{Value, json};

use super::{
    asked::Asked,
    models::Model,
    refusal::{Refusal, quoted},
    sidecar::{self, CONTAINER, PodUser, Runs, SOCKET_VOLUME, Sidecar},
};
use crate::names::{INJECTED, MODELS};
use embark_crds::contract::{INJECTED_ADMIN_PORT, INJECTED_GRPC_PORT, files::SOCKET_DIR};

/// A list of containers in a pod's spec.
type Place<'a> = (&'static str, usize, &'a Container);

/// What is changed in a pod that asks for these models, whose sidecar is of this image.
///
/// # Errors
/// The pod and the sidecar cannot be together.
pub(super) fn patch(
    pod: &Pod,
    asked: &Asked,
    models: &[Model],
    image: &str,
) -> Result<Vec<Value>, Refusal> {
    let Some(spec) = &pod.spec else {
        return Err(Refusal::malformed("spec: is missing".to_owned()));
    };
    check(spec)?;
    models.iter().try_for_each(check_model)?;
    let is_root = spec.security_context.as_ref().and_then(|all| all.run_as_user) == Some(0);
    let user = if is_root { PodUser::Root } else { PodUser::Other };
    let sidecar = sidecar::build(asked, models, Runs { image, user });
    let made_for = asked.joined();
    let is_there = is_there(pod, spec, &made_for)?;
    let mut patch = Vec::new();
    if !is_there {
        refuse_taken(spec, &sidecar)?;
        add_sidecar(spec, &sidecar, &mut patch)?;
        // A slash in a name is written so.
        let path = format!("/metadata/annotations/{}", INJECTED.replace('/', "~1"));
        patch.push(json!({ "op": "add", "path": path, "value": made_for }));
    }
    for place in applications(spec) {
        add_to(place, &mut patch)?;
    }
    Ok(patch)
}

/// Whether an earlier call made the sidecar that is there.
fn is_there(pod: &Pod, spec: &PodSpec, made_for: &str) -> Result<bool, Refusal> {
    let said = pod.metadata.annotations.as_ref().and_then(|all| all.get(INJECTED));
    if !all(spec).any(|(.., container)| container.name == CONTAINER) {
        return Ok(false);
    }
    match said {
        Some(said) if said == made_for => Ok(true),
        Some(said) => Err(Refusal::malformed(format!(
            "metadata.annotations[{INJECTED}]: container {CONTAINER} was made for the models {}, and {MODELS} says {}: \
             leave out the annotation and what was injected",
            quoted(said),
            quoted(made_for)
        ))),
        None => Ok(false),
    }
}

/// Whether a sidecar can be in such a pod at all.
fn check(spec: &PodSpec) -> Result<(), Refusal> {
    if spec.host_network == Some(true) {
        return Err(Refusal::forbidden(format!(
            "spec.hostNetwork: true: the sidecar's ports {INJECTED_GRPC_PORT} and {INJECTED_ADMIN_PORT} would be the node's; \
             leave it out, or call the model's Service"
        )));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(Refusal::forbidden("spec.os.name: the sidecar runs on linux alone".to_owned()));
    }
    let ours = [INJECTED_GRPC_PORT, INJECTED_ADMIN_PORT].map(i32::from);
    for (list, number, container) in all(spec).filter(|(.., one)| one.name != CONTAINER) {
        for port in container.ports.iter().flatten() {
            let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            if is_tcp && ours.contains(&port.container_port) {
                return Err(Refusal::forbidden(format!(
                    "spec.{list}[{number}].ports: container {} listens on {}, which is the sidecar's; \
                     it needs {} and {}",
                    container.name, port.container_port, ours[0], ours[1]
                )));
            }
        }
    }
    Ok(())
}

/// Volumes may only be mounted on one node, or be away: then the application would not start.
fn check_model(model: &Model) -> Result<(), Refusal> {
    for (field, artifact) in model.spec.iter().flat_map(|spec| spec.artifacts()) {
        if artifact.uri.starts_with("pvc://") {
            return Err(Refusal::forbidden(format!(
                "metadata.annotations[{MODELS}]: {field} of EmbeddingModel {:?} is on a PersistentVolumeClaim, which could \
                 keep the pod from starting: call the model's Service instead",
                model.name
            )));
        }
    }
    Ok(())
}

/// Names that are ours and were given to something else.
fn refuse_taken(spec: &PodSpec, sidecar: &Sidecar) -> Result<(), Refusal> {
    if let Some((list, number, _)) = all(spec).find(|(.., one)| one.name == CONTAINER) {
        return Err(Refusal::forbidden(format!(
            "spec.{list}[{number}].name: {CONTAINER:?} is the name of the sidecar that is to be injected"
        )));
    }
    for (number, volume) in spec.volumes.iter().flatten().enumerate() {
        if sidecar.volumes.iter().any(|ours| ours.name == volume.name) {
            return Err(Refusal::forbidden(format!(
                "spec.volumes[{number}].name: {:?} is the name of a volume that is to be injected",
                volume.name
            )));
        }
    }
    Ok(())
}

/// The sidecar is last: it starts once whatever prepares the pod is done, and before the application.
fn add_sidecar(spec: &PodSpec, sidecar: &Sidecar, patch: &mut Vec<Value>) -> Result<(), Refusal> {
    let volumes = sidecar.volumes.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    append("/spec/volumes", spec.volumes.as_ref().map(Vec::len), volumes, patch);
    let containers = spec.init_containers.as_ref().map(Vec::len);
    append("/spec/initContainers", containers, vec![value(&sidecar.container)?], patch);
    Ok(())
}

/// What a container of the application gets that it does not have.
fn add_to((list, number, container): Place<'_>, patch: &mut Vec<Value>) -> Result<(), Refusal> {
    let path = format!("/spec/{list}/{number}");
    let present = container.env.as_deref().unwrap_or_default();
    let missing = sidecar::variables().into_iter();
    let missing = missing.filter(|(name, _)| present.iter().all(|one| one.name != *name));
    let missing: Vec<Value> =
        missing.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    if present.is_empty() && !missing.is_empty() {
        patch.push(json!({ "op": "add", "path": format!("{path}/env"), "value": missing }));
    } else {
        // In front: what stands behind may refer to them.
        for one in missing.into_iter().rev() {
            patch.push(json!({ "op": "add", "path": format!("{path}/env/0"), "value": one }));
        }
    }
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let is_socket_dir = |mount: &&VolumeMount| mount.mount_path.trim_end_matches('/') == SOCKET_DIR;
    match mounts.iter().find(is_socket_dir) {
        Some(mount) if mount.name == SOCKET_VOLUME => {}
        Some(mount) => {
            return Err(Refusal::forbidden(format!(
                "spec.{list}[{number}].volumeMounts: container {} has volume {} at {SOCKET_DIR}, where the sidecar's socket is",
                container.name, mount.name
            )));
        }
        None => {
            refuse_hidden(list, number, container)?;
            let count = container.volume_mounts.as_ref().map(Vec::len);
            let ours = vec![value(&sidecar::socket_mount())?];
            append(&format!("{path}/volumeMounts"), count, ours, patch);
        }
    }
    Ok(())
}

/// The folder of the socket is made where it is mounted, which a mount that only reads above it keeps from being; and what is
/// mounted below it is made within it, on a volume that is mounted to be read alone.
fn refuse_hidden(list: &str, number: usize, container: &Container) -> Result<(), Refusal> {
    for mount in container.volume_mounts.iter().flatten() {
        let path = mount.mount_path.trim_end_matches('/');
        let is_above = SOCKET_DIR.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let is_below = path.strip_prefix(SOCKET_DIR).is_some_and(|rest| rest.starts_with('/'));
        let sentence = match mount.read_only {
            Some(true) if is_above => "where the folder of the sidecar's socket cannot be made",
            _ if is_below => "within the folder of the sidecar's socket",
            _ => continue,
        };
        return Err(Refusal::forbidden(format!(
            "spec.{list}[{number}].volumeMounts: container {} has volume {} at {}, {sentence}, {SOCKET_DIR}",
            container.name,
            mount.name,
            super::refusal::quoted(&mount.mount_path)
        )));
    }
    Ok(())
}

/// Every container of a pod.
fn all(spec: &PodSpec) -> impl Iterator<Item = Place<'_>> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let main = spec.containers.iter().enumerate();
    let init = init.map(|(number, container)| ("initContainers", number, container));
    init.chain(main.map(|(number, container)| ("containers", number, container)))
}

/// The containers that run while the sidecar does, but for itself: what prepares the pod has ended before.
fn applications(spec: &PodSpec) -> impl Iterator<Item = Place<'_>> {
    all(spec).filter(|(list, _, container)| {
        let runs_on = container.restart_policy.as_deref() == Some("Always");
        container.name != CONTAINER && (*list == "containers" || runs_on)
    })
}

/// Adds to the end of a list that has so many, or makes it.
fn append(path: &str, count: Option<usize>, values: Vec<Value>, patch: &mut Vec<Value>) {
    match count {
        None | Some(0) => patch.push(json!({ "op": "add", "path": path, "value": values })),
        Some(_) => patch.extend(
            values
                .into_iter()
                .map(|value| json!({ "op": "add", "path": format!("{path}/-"), "value": value })),
        ),
    }
}

fn value(part: &impl serde::Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(part)
        .map_err(|error| Refusal::failed(format!("cannot be written: {error}")))
}

#[cfg(test)]
mod tests;
