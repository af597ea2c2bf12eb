//! What a refused call has to say.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Checks a refusal's code and reason, and that it has a sentence and the product's domain; gives its metadata: the field,
/// the value and what is allowed, as far as they fit.
pub fn metadata(refused: &Status, code: Code, reason: &str) -> HashMap<String, String> {
    assert_eq!(refused.code(), code, "{refused}");
    let info = refused.get_details_error_info().unwrap_or_else(|| panic!("no reason: {refused}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "embark.dev"));
    let sentence = refused.message();
    assert!(sentence.len() > 15 && sentence.contains(' '), "not a sentence: {sentence:?}");
    let again = matches!(code, Code::Unavailable | Code::ResourceExhausted);
    assert_eq!(refused.get_details_retry_info().is_some(), again, "when to try again: {refused}");
    assert_eq!(refused.metadata().contains_key("grpc-retry-pushback-ms"), again);
    info.metadata
}

/// Checks a refusal that is about one field of the request, which the sentence names too.
pub fn of_field(
    refused: &Status,
    code: Code,
    reason: &str,
    field: &str,
) -> HashMap<String, String> {
    let metadata = metadata(refused, code, reason);
    assert_eq!(metadata.get("field").map(String::as_str), Some(field), "{refused}");
    assert!(refused.message().contains(field), "{:?} does not name {field}", refused.message());
    metadata
}
