//! Failures as gRPC knows them. The one place where a kind becomes a code.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{Error, ErrorKind};

/// The domain of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "embark.dev";
/// What a caller is told to wait before it tries a failure again that passes by itself.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The trailer that gRPC clients with a retry policy obey.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The code of a kind.
pub fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::ModelUnknown | ErrorKind::Miss => Code::NotFound,
        ErrorKind::PromptUnknown
        | ErrorKind::ItemsEmpty
        | ErrorKind::TooManyItems
        | ErrorKind::ItemKind
        | ErrorKind::TextEmpty
        | ErrorKind::TextTooLong
        | ErrorKind::TextNotUtf8
        | ErrorKind::ImageUndecodable
        | ErrorKind::UrlFailed
        | ErrorKind::Shape
        | ErrorKind::Dimensions
        | ErrorKind::Malformed => Code::InvalidArgument,
        ErrorKind::SpaceMismatch => Code::FailedPrecondition,
        ErrorKind::QueueFull | ErrorKind::WaitTooLong | ErrorKind::Memory => {
            Code::ResourceExhausted
        }
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Draining
        | ErrorKind::ModelNotReady
        | ErrorKind::WorkerLost
        | ErrorKind::UrlUnavailable => Code::Unavailable,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::InvalidationOff | ErrorKind::UrlNotAllowed => Code::PermissionDenied,
        ErrorKind::NotFinite | ErrorKind::Inference | ErrorKind::NotDurable => Code::Internal,
    }
}

/// How long a caller should wait before it tries again; `None`: trying again is of no use.
pub fn retry_after(error: &Error) -> Option<Duration> {
    let passes = matches!(code(error.kind), Code::ResourceExhausted | Code::Unavailable);
    passes.then(|| error.retry_after.unwrap_or(RETRY_AFTER))
}

/// A failing call: the sentence, and `google.rpc` details that a program can read.
pub fn of(error: &Error) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(error.kind.reason(), DOMAIN, metadata(error));
    let mut trailers = MetadataMap::new();
    if let Some(wait) = retry_after(error) {
        details.set_retry_info(Some(wait));
        trailers.insert(PUSHBACK, milliseconds(wait).into());
    }
    Status::with_error_details_and_metadata(
        code(error.kind),
        error.message.clone(),
        details,
        trailers,
    )
}

/// Whole milliseconds, as the wire has them.
pub fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn metadata(error: &Error) -> HashMap<String, String> {
    [("field", &error.field), ("value", &error.value), ("allowed", &error.allowed)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name.to_owned(), text.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_and_a_reason_of_its_own() {
        let reasons: std::collections::HashSet<_> =
            ErrorKind::ALL.iter().map(|kind| kind.reason()).collect();
        assert_eq!(reasons.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert_ne!(code(*kind), Code::Ok);
            assert_ne!(code(*kind), Code::Unknown);
        }
    }

    #[test]
    fn a_status_carries_reason_field_value_and_what_is_allowed() {
        let error =
            Error::of_field(ErrorKind::PromptUnknown, "prompt", "x", "is not one of: query");
        let status = of(&error);
        let info = status.get_details_error_info().expect("error info");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("PROMPT_UNKNOWN", "embark.dev"));
        assert_eq!(info.metadata["field"], "prompt");
        assert_eq!(info.metadata["value"], "x");
        assert_eq!(info.metadata["allowed"], "is not one of: query");
    }

    #[test]
    fn what_passes_by_itself_says_when_to_try_again() {
        let status = of(&Error::new(ErrorKind::QueueFull, "full"));
        assert!(status.get_details_retry_info().is_some());
        assert!(status.metadata().contains_key(PUSHBACK));
        assert!(of(&Error::new(ErrorKind::ItemsEmpty, "none")).get_details_retry_info().is_none());
    }
}
