//! The client of the CacheService: a server is told to forget.

use std::{str::FromStr, time::Duration};

use prost_types::Timestamp;
use tokio::time::timeout;
use tonic::Status;

use super::{CallFailed, Client};
use crate::pb::client::{
    InvalidateRequest, Item, ItemKeys, cache_service_client::CacheServiceClient,
    invalidate_request, item::Input,
};

/// How long a server may take to forget; it waits itself for its disk, up to half a minute.
const FORGET_LIMIT: Duration = Duration::from_secs(40);

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every vector of the model.
    All,
    /// The vectors of these texts, under every prompt.
    Texts(Vec<String>),
}

/// A moment, as RFC 3339 writes it. Vectors whose computation began at or before it are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before(Timestamp);

/// What a server answers that has forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// What the process calls itself.
    pub instance: String,
    /// The time that it applied, by RFC 3339.
    pub before: String,
}

/// The text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a time by RFC 3339, such as 2026-01-31T12:00:00Z")]
pub struct NotATime;

// === impl Client ===

impl Client {
    /// Makes the server forget vectors of a model; an empty name means the only one. Without a time it is the server's
    /// present.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn forget(
        &self,
        model: &str,
        scope: &Scope,
        before: Option<Before>,
    ) -> Result<Forgotten, CallFailed> {
        let request = InvalidateRequest {
            model: model.to_owned(),
            scope: Some(scope.message()),
            before: before.map(|Before(time)| time),
        };
        let mut service = CacheServiceClient::new(self.channel.clone());
        let answer = timeout(FORGET_LIMIT, service.invalidate(request)).await;
        let answer = answer.unwrap_or_else(|_| {
            let sentence = format!("no answer within {FORGET_LIMIT:?}; it may still forget");
            Err(Status::unavailable(sentence))
        });
        let answer = answer.map_err(|status| self.greeted(&status))?.into_inner();
        let before = answer.before.map(|time| time.to_string()).unwrap_or_default();
        Ok(Forgotten { instance: answer.instance, before })
    }
}

// === impl Scope ===

impl Scope {
    fn message(&self) -> invalidate_request::Scope {
        match self {
            Scope::All => invalidate_request::Scope::All(true),
            Scope::Texts(texts) => {
                let item = |text: &String| Item { input: Some(Input::Text(text.clone())) };
                let items = texts.iter().map(item).collect();
                invalidate_request::Scope::Items(ItemKeys { items })
            }
        }
    }
}

// === impl Before ===

impl FromStr for Before {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        // A date alone, or a time without its offset, is read by the library as UTC, which its writer may not mean.
        let Some((_, time)) = text.split_once(['T', 't']) else { return Err(NotATime) };
        if !time.ends_with(['Z', 'z']) && !time.contains(['+', '-']) {
            return Err(NotATime);
        }
        text.parse().map(Before).map_err(|_| NotATime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_date_a_time_and_an_offset() {
        let seconds = |text: &str| text.parse::<Before>().map(|Before(time)| time.seconds);
        assert_eq!(seconds("1970-01-01T00:01:00Z"), Ok(60));
        assert_eq!(seconds("1970-01-01T01:01:00.5+01:00"), Ok(60));
        for wrong in ["", "now", "1970-01-01", "1970-01-01T00:01:00", "1970-13-01T00:00:00Z"] {
            assert_eq!(seconds(wrong), Err(NotATime), "{wrong:?}");
        }
    }
}
