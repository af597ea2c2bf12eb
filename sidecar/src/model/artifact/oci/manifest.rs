//! The manifest of an artefact: which layer is the file.

use std::collections::BTreeMap;

use embark_crds::contract::Sha256;
use serde::Deserialize;

use crate::model::refusal::quote;

/// The annotation that holds a layer's title.
const TITLE: &str = "org.opencontainers.image.title";
/// The most titles that a sentence lists.
const MAX_TITLES: usize = 16;

/// A layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// What it must be.
    pub(super) digest: Sha256,
    /// Its bytes.
    pub(super) size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

// === impl Descriptor ===

impl Descriptor {
    fn title(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(TITLE).map(String::as_str)
    }
}

// === free functions ===

/// The one layer of this title.
///
/// # Errors
/// What is wrong with the manifest, or which titles it has.
pub(super) fn layer(bytes: &[u8], title: &str) -> Result<Blob, String> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| format!("has a manifest that cannot be read: {}", quote(error)))?;
    if manifest.manifests.is_some() {
        return Err("is an index of manifests; name the digest of one manifest".to_owned());
    }
    let layers = manifest.layers.unwrap_or_default();
    let mut found = layers.iter().filter(|layer| layer.title() == Some(title));
    let (Some(layer), None) = (found.next(), found.next()) else {
        let titles: Vec<&str> = layers.iter().filter_map(Descriptor::title).collect();
        let listed = titles.iter().take(MAX_TITLES).map(quote).collect::<Vec<_>>().join(", ");
        return Err(match titles.iter().filter(|other| **other == title).count() {
            0 if titles.is_empty() => "has no layer with a title".to_owned(),
            0 => format!("has no layer of the title {title:?}; there are: {listed}"),
            several => format!("has {several} layers of the title {title:?}"),
        });
    };
    let digest = layer.digest.strip_prefix("sha256:").and_then(|hex| Sha256::parse(hex).ok());
    let digest = digest.ok_or("has a layer of this title whose digest is no sha256")?;
    Ok(Blob { digest, size: layer.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, title: &str) -> Result<u64, String> {
        layer(json.as_bytes(), title).map(|blob| blob.size)
    }

    #[test]
    fn the_layer_is_found_by_its_title() {
        let digest = "0".repeat(64);
        let titled = |title: &str, size: u64| {
            format!(
                r#"{{"digest": "sha256:{digest}", "size": {size}, "annotations": {{"{TITLE}": "{title}"}}}}"#
            )
        };
        let json = format!(
            r#"{{"schemaVersion": 2, "layers": [{}, {}, {}, {{"digest": "sha256:{digest}", "size": 1}}]}}"#,
            titled("model.onnx", 7),
            titled("twice", 8),
            titled("twice", 9),
        );
        assert_eq!(of(&json, "model.onnx"), Ok(7));
        assert_eq!(of(&json, "twice"), Err("has 2 layers of the title \"twice\"".to_owned()));
        let listed = "has no layer of the title \"a\"; there are: model.onnx, twice, twice";
        assert_eq!(of(&json, "a"), Err(listed.to_owned()));
    }

    #[test]
    fn what_is_no_artefact_is_told() {
        let wrong = r#"{"layers": [{"digest": "sha256:../..", "size": 1, "annotations": {"org.opencontainers.image.title": "a"}}]}"#;
        for (json, expected) in [
            (r#"{"layers": []}"#, "has no layer with a title"),
            ("{}", "has no layer with a title"),
            (r#"{"manifests": []}"#, "is an index of manifests; name the digest of one manifest"),
            (wrong, "has a layer of this title whose digest is no sha256"),
        ] {
            assert_eq!(of(json, "a"), Err(expected.to_owned()));
        }
        for json in ["", "7", r#"{"layers": [{"size": -1}]}"#] {
            let sentence = of(json, "a").unwrap_err();
            assert!(sentence.starts_with("has a manifest that cannot be read: "), "{sentence}");
        }
    }
}
