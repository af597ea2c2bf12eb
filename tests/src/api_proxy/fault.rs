//! What may come of a request instead of its answer.

use axum::{body::Body, response::Response};
use http::header;
use serde_json::json;

use super::Call;

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this code, and nothing is done.
    Refuse(u16),
    /// It is refused with 429: try again in so many seconds.
    Throttle(u32),
    /// The connection ends, and nothing is done.
    NoAnswer,
    /// It is done, and the connection ends before the answer.
    LoseAnswer,
    /// It waits for [`super::ApiProxy::clear`], and is done then.
    Hold,
    /// It is done, and its answer waits for [`super::ApiProxy::clear`].
    HoldAnswer,
    /// A watch begins and ends at once, as it should.
    EmptyWatch,
}

/// Whom a fault is for.
pub(super) struct Rule {
    pub(super) left: usize,
    pub(super) fault: Fault,
    pub(super) is: Box<dyn Fn(&Call) -> bool + Send + Sync>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {:?}", self.left, self.fault)
    }
}

// === impl Fault ===

impl Fault {
    /// The answer that is made up, if one is.
    pub(super) fn answer(self) -> Option<Response> {
        let (code, seconds) = match self {
            Fault::Refuse(code) => (code, None),
            Fault::Throttle(seconds) => (429, Some(seconds)),
            Fault::EmptyWatch => return Some(Response::new(Body::empty())),
            _ => return None,
        };
        let reason = match code {
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": format!("made up by a test: {reason}"), "reason": reason, "code": code,
        });
        let answer = Response::builder().status(code).header(header::CONTENT_TYPE, JSON);
        let answer = match seconds {
            Some(seconds) => answer.header(header::RETRY_AFTER, seconds),
            None => answer,
        };
        Some(answer.body(Body::from(status.to_string())).expect("its parts are good"))
    }
}

const JSON: &str = "application/json";
