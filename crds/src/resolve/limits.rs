//! What `resolve` alone can judge: sizes of the whole, details of URLs, and what depends on where a model is served.

use serde_json::Value;

use super::{Target, uri};
use crate::{
    contract::Location,
    field::{FieldError, join},
    v1alpha1::{Artifact, EmbeddingModelSpec, SelfTestInput},
};

/// The most bytes of a whole spec, as JSON.
const MAX_SPEC_BYTES: usize = 128 * 1024;

/// Adds what is wrong with a spec; `value` is the same spec as JSON.
pub(super) fn check(
    value: &Value,
    spec: &EmbeddingModelSpec,
    target: Target,
    errors: &mut Vec<FieldError>,
) {
    let bytes = value.to_string().len();
    if bytes > MAX_SPEC_BYTES {
        let message = format!("has {bytes} bytes as JSON, at most {MAX_SPEC_BYTES} are allowed");
        errors.push(FieldError::of_field("spec", message));
    }
    for (field, artifact) in spec.artifacts() {
        let field = join(field, "uri");
        // A URI whose shape is wrong has been told of already.
        if errors.iter().any(|error| error.field == field) {
            continue;
        }
        if let Err(message) = locate(artifact, target) {
            let uri = Value::from(artifact.uri.as_str());
            errors.push(FieldError::new(field, Some(&uri), message));
        }
    }
    check_tensors(spec, errors);
}

fn locate(artifact: &Artifact, target: Target) -> Result<(), String> {
    // A title that is missing is told at its own field.
    if artifact.uri.starts_with("oci://") && artifact.path.is_none() {
        return Ok(());
    }
    match (uri::locate(artifact)?, target) {
        (Location::File { .. }, Target::Cluster) => {
            Err("cannot be read in a cluster: file:// is for a sidecar that is started by hand"
                .to_owned())
        }
        (Location::Pvc { .. }, Target::Local) => {
            Err("can be read in a cluster only: outside of one there is no PersistentVolumeClaim"
                .to_owned())
        }
        _ => Ok(()),
    }
}

fn check_tensors(spec: &EmbeddingModelSpec, errors: &mut Vec<FieldError>) {
    let Some(tensor) = &spec.input.tensor else { return };
    let elements = tensor
        .shape
        .iter()
        .try_fold(1_usize, |product, &n| product.checked_mul(usize::try_from(n).ok()?));
    let mut check = |field: String, input: &SelfTestInput| {
        let Some(given) = input.tensor.as_ref().map(Vec::len) else { return };
        if let Some(elements) = elements.filter(|&elements| elements != given) {
            let message = format!(
                "holds {given} numbers, the shape of spec.input.tensor has {elements} elements"
            );
            errors.push(FieldError::of_field(join(&field, "tensor"), message));
        }
    };
    for (index, test) in spec.self_test.iter().enumerate() {
        check(format!("spec.selfTest[{index}].input"), &test.input);
        if let Some(other) = &test.similar_to {
            check(format!("spec.selfTest[{index}].similarTo"), other);
        }
    }
}
