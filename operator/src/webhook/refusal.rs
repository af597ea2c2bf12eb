//! Why a pod is not taken: one sentence, which whoever made it reads.

/// The most characters of a text of somebody else's within a sentence.
const QUOTED: usize = 64;

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The HTTP status that the API server passes on.
    pub(super) code: u16,
    /// The sentence. It opens with the field that it is about.
    pub(super) message: String,
    /// Whether it is the operator that failed, rather than the pod.
    pub(super) is_error: bool,
}

// === impl Refusal ===

impl Refusal {
    /// Something is wrong with what the pod says.
    pub(super) fn malformed(message: String) -> Self {
        Refusal { code: 400, message, is_error: false }
    }

    /// What it asks for is not to be had.
    pub(super) fn forbidden(message: String) -> Self {
        Refusal { code: 403, message, is_error: false }
    }

    /// It cannot be judged now.
    pub(super) fn failed(message: String) -> Self {
        Refusal { code: 500, message, is_error: true }
    }
}

// === free functions ===

/// A text of somebody else's, bounded and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let end = text.char_indices().nth(QUOTED).map(|(end, _)| end);
    match end {
        Some(end) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
