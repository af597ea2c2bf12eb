//! Models: the vendored one, and one that is not in the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where tests/run puts it.
const VARIABLE: &str = "EMBARK_TEST_MINILM";

/// A manifest of all-MiniLM-L6-v2, with the cache off.
///
/// # Errors
/// A sentence that says how to have it.
pub(crate) fn minilm() -> Result<Value, String> {
    let folder = std::env::var_os(VARIABLE).map(PathBuf::from).ok_or_else(|| {
        format!(
            "{VARIABLE} is not set: `bash tests/run --only models` makes the model, and puts it into models/minilm of its cache"
        )
    })?;
    let (model, tokenizer) = (folder.join("model.onnx"), folder.join("tokenizer.json"));
    Ok(json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "minilm"},
        "spec": {
            "model": {
                "source": artifact(&model)?,
                "output": {"name": "sentence_embedding", "dimensions": 384},
            },
            "input": {"text": {"tokenizer": artifact(&tokenizer)?}},
            "cache": {"mode": "Disabled"},
        },
    }))
}

/// A manifest of the vendored model, whose cache is as said.
pub(crate) fn tiny(cache: &Value) -> Value {
    let part = |file: &str, sha256: &str| json!({"uri": format!("builtin://tiny-static-minilm/{file}"), "sha256": sha256});
    let model =
        part("model.onnx", "e5e89d887c74dccfc8bd097e87879085dd8c120bdae86b3707fc69a4e3f4fe15");
    let tokenizer =
        part("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037");
    json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "tiny"},
        "spec": {
            "model": {"source": model, "output": {"dimensions": 128}},
            "input": {"text": {"tokenizer": tokenizer}},
            "cache": cache,
        },
    })
}

/// A file of this machine.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub(crate) fn artifact(file: &Path) -> Result<Value, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({"uri": format!("file://{}", file.display()), "sha256": sha256}))
}
