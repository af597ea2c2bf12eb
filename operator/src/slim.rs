//! What is left out of objects before they are kept. Whoever may make objects may give them our label, so that what one costs
//! in memory is not for others to say.

use embark_crds::digest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec};

use crate::names;

/// An object that is compared field by field.
pub(crate) fn whole<K>(_: &mut K) {}

/// The texts of a ConfigMap become their digests, which tell as well whether one was changed.
pub(crate) fn config_map(config_map: &mut ConfigMap) {
    config_map.binary_data = None;
    for text in config_map.data.iter_mut().flat_map(|data| data.values_mut()) {
        *text = self::text(text);
    }
}

/// What is kept of a ConfigMap's text.
pub(crate) fn text(text: &str) -> String {
    digest::of_part(text)
}

/// Of a pod, what it mounts and how it is.
pub(crate) fn pod(pod: &mut Pod) {
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == names::POLICY_HASH);
    }
    if let Some(spec) = &mut pod.spec {
        let volumes = spec.volumes.take();
        *spec = PodSpec { volumes, ..Default::default() };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_of_an_object_does_not_grow_with_its_texts() {
        let long = "x".repeat(1 << 20);
        let mut map: ConfigMap =
            serde_json::from_value(json!({"data": {"a": long}, "binaryData": {"b": "eHg="}}))
                .unwrap();
        config_map(&mut map);
        assert_eq!(map.data.as_ref().unwrap()["a"], text(&long));
        assert!(serde_json::to_string(&map).unwrap().len() < 256);
        let mut one: Pod = serde_json::from_value(json!({
            "metadata": {"annotations": {"other": long, (names::POLICY_HASH): "hash"}},
            "spec": {
                "containers": [{"name": "a", "args": [long]}],
                "volumes": [{"name": "contract", "configMap": {"name": "a-contract"}}],
            },
            "status": {"podIP": "10.0.0.1"},
        }))
        .unwrap();
        pod(&mut one);
        let kept = serde_json::to_string(&one).unwrap();
        assert!(kept.len() < 512, "{kept}");
        for part in ["a-contract", "10.0.0.1", "\"hash\""] {
            assert!(kept.contains(part), "{kept}");
        }
    }
}
