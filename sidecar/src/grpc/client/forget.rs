//! The client of the CacheService: a server is told to forget.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;

use super::{CallFailed, Client, before::Before};
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

/// What a server answers that has forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// What the process calls itself.
    pub instance: String,
    /// The time that it applied, by RFC 3339.
    pub before: String,
}

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
            before: before.map(Before::timestamp),
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
