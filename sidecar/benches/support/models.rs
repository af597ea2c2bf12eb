//! A model that is not in the repository.

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

/// A file of this machine.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub(crate) fn artifact(file: &Path) -> Result<Value, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({"uri": format!("file://{}", file.display()), "sha256": sha256}))
}
