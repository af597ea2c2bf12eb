//! What the API server asks and is answered: AdmissionReview of admission.k8s.io/v1.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;

/// The version that is spoken.
const VERSION: &str = "admission.k8s.io/v1";
/// The most objects and lists in a question: far more than a pod has. Each may take hundreds of times its bytes once it is read.
const MOST_PARTS: usize = 20_000;
/// The kind of question and answer.
const KIND: &str = "AdmissionReview";

/// A question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// What is asked about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    /// Which answer belongs to which question.
    pub(super) uid: String,
    /// Where the object will be, whatever it says itself.
    #[serde(default)]
    pub(super) namespace: String,
    /// The object as it would be stored.
    #[serde(default)]
    pub(super) object: Value,
}

// === impl Review ===

impl Review {
    /// Reads a question.
    ///
    /// # Errors
    /// It is none, or of another version: then there is nobody to answer to.
    pub(super) fn read(body: &[u8]) -> Result<Request, String> {
        if parts(body) > MOST_PARTS {
            return Err(format!("has more than {MOST_PARTS} objects and lists"));
        }
        let review: Review = serde_json::from_slice(body)
            .map_err(|error| format!("is no {KIND} of {VERSION}: {error}"))?;
        if review.api_version != VERSION || review.kind != KIND {
            return Err(format!("is no {KIND} of {VERSION}"));
        }
        review.request.ok_or_else(|| format!("the {KIND} has no request"))
    }
}

// === free functions ===

/// How many objects and lists begin outside of texts.
fn parts(json: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// The answer to a question: a JSON patch, which may be empty, or why not.
pub(super) fn answer(uid: &str, outcome: &Result<Vec<Value>, Refusal>) -> Value {
    let response = match outcome {
        Ok(patch) if patch.is_empty() => json!({ "uid": uid, "allowed": true }),
        Ok(patch) => {
            let patch = STANDARD.encode(Value::from(patch.clone()).to_string());
            json!({ "uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch })
        }
        Err(refusal) => {
            let status = json!({ "code": refusal.code, "message": refusal.message });
            json!({ "uid": uid, "allowed": false, "status": status })
        }
    };
    json!({ "apiVersion": VERSION, "kind": KIND, "response": response })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_question_is_told_and_never_panics() {
        assert_eq!(parts(br#"{"[{\"[": [{}]}"#), 3);
        let (deep, many) = ("[".repeat(10_000), format!("[{}{{}}]", "{},".repeat(MOST_PARTS)));
        for (body, part) in [
            ("", "is no AdmissionReview"),
            (deep.as_str(), "is no AdmissionReview"),
            (many.as_str(), "more than 20000 objects"),
            ("{}", "is no AdmissionReview"),
            (r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#, "is no"),
            (r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#, "no request"),
        ] {
            let error = Review::read(body.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_answer_goes_to_its_question() {
        let refused = answer("1", &Err(Refusal::forbidden("no".to_owned())));
        assert_eq!(refused["response"]["uid"], "1");
        assert_eq!(refused["response"]["status"], json!({"code": 403, "message": "no"}));
        let patched = answer("2", &Ok(vec![json!({"op": "add"})]));
        assert_eq!(patched["response"]["patch"], "W3sib3AiOiJhZGQifV0=");
        assert_eq!(answer("3", &Ok(Vec::new()))["response"], json!({"uid": "3", "allowed": true}));
    }
}
