//! Files that are compiled in, so that the quick start needs no network. They are verified like any other.

use bytes::Bytes;

use super::FetchCause;

/// Every file, by what follows `builtin://`.
const FILES: &[(&str, &[u8])] = &[
    (
        "tiny-static-minilm/model.onnx",
        include_bytes!("../../../../examples/models/tiny-static-minilm/model.onnx"),
    ),
    (
        "tiny-static-minilm/tokenizer.json",
        include_bytes!("../../../../examples/models/tiny-static-minilm/tokenizer.json"),
    ),
];

// === free functions ===

/// Whether there is a file of this name.
pub(super) fn exists(path: &str) -> bool {
    FILES.iter().any(|(name, _)| *name == path)
}

/// The file of this name.
pub(super) fn read(path: &str) -> Result<Bytes, FetchCause> {
    match FILES.iter().find(|(name, _)| *name == path) {
        Some((_, bytes)) => Ok(Bytes::from_static(bytes)),
        None => Err(FetchCause::NoBuiltin { path: path.to_owned() }),
    }
}

/// Every URI, for sentences.
pub(super) fn names() -> String {
    FILES.iter().map(|(name, _)| format!("builtin://{name}")).collect::<Vec<_>>().join(", ")
}
