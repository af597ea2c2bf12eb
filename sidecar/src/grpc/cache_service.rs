//! The CacheService: callers make the process forget.

use std::{
    iter,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;
use tonic::{Request, Response, Status};
use tracing::info;

use super::{status, validate};
use crate::{
    clock::Clock,
    cpu_pool::CpuPool,
    error::{Error, ErrorKind},
    key::CacheKey,
    pb::server::{
        InvalidateRequest, InvalidateResponse, Item, cache_service_server::CacheService,
        invalidate_request::Scope,
    },
    served::{ServedModel, ServedModels},
};

pub(super) struct Caches {
    models: ServedModels,
    clock: Arc<dyn Clock>,
    instance: String,
    /// Where items become keys: one request at a time, apart from what embedding needs.
    pool: CpuPool,
}

// === impl Caches ===

impl Caches {
    /// The caches of `models`; `instance` is what the process calls itself in answers.
    pub(super) fn new(
        models: ServedModels,
        clock: Arc<dyn Clock>,
        instance: String,
        pool: CpuPool,
    ) -> Self {
        Caches { models, clock, instance, pool }
    }

    async fn answer(&self, message: InvalidateRequest) -> Result<InvalidateResponse, Error> {
        let model = self.models.get(&message.model)?;
        if !model.policy.load().cache.allow_invalidation {
            let sentence = format!(
                "model {:?} does not allow invalidation (spec.cache.allowInvalidation: false)",
                model.name()
            );
            return Err(Error::new(ErrorKind::InvalidationOff, sentence));
        }
        let before_ms = before(message.before, self.clock.now_ms())?;
        let cache = &model.runtime()?.cache;
        let what = match &message.scope {
            Some(Scope::Items(items)) => items.items.len().to_string(),
            _ => "all".to_owned(),
        };
        info!(model = model.name(), items = what, before_ms, "is told to forget");
        match message.scope {
            Some(Scope::All(true)) => cache.invalidate_all(before_ms).await?,
            Some(Scope::Items(items)) => {
                let model = Arc::clone(&model);
                let keys = self.pool.run(move || keys(&model, items.items)).await??;
                // It goes on when the caller leaves: what it began must be completed, or its rules would stay.
                let cache = Arc::clone(cache);
                let invalidating =
                    tokio::spawn(async move { cache.invalidate_items(keys, before_ms).await });
                let lost = |_| Error::new(ErrorKind::WorkerLost, "forgetting did not end");
                invalidating.await.map_err(lost)??;
            }
            Some(Scope::All(false)) => {
                let allowed = "must be true; to forget single items, give items";
                return Err(Error::of_field(ErrorKind::Malformed, "all", "false", allowed));
            }
            None => {
                let sentence = "scope: nothing given; give all: true, or items";
                let error = Error::new(ErrorKind::Malformed, sentence).about("scope", "");
                return Err(error.allowing("all: true, or items"));
            }
        }
        Ok(InvalidateResponse {
            before: Some(timestamp(before_ms)),
            instance: self.instance.clone(),
        })
    }
}

#[tonic::async_trait]
impl CacheService for Caches {
    async fn invalidate(
        &self,
        request: Request<InvalidateRequest>,
    ) -> Result<Response<InvalidateResponse>, Status> {
        let answer = self.answer(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| status::of(&error))
    }
}

// === free functions ===

/// The keys of items under every prompt, and under none. One item that is wrong refuses all: nothing is half forgotten.
fn keys(model: &ServedModel, items: Vec<Item>) -> Result<Vec<CacheKey>, Error> {
    validate::count(model, items.len())?;
    let (prompts, _) = model.prompts();
    let prefixes: Vec<&str> =
        iter::once("").chain(prompts.iter().map(|prompt| prompt.prefix.as_str())).collect();
    let mut keys = Vec::new();
    for input in validate::items(model.input(), items) {
        let input = model.canonical(input?);
        let of = |prefix: &&str| CacheKey::of_input(&model.space, prefix, &input);
        keys.extend(prefixes.iter().map(of));
    }
    Ok(keys)
}

/// The time up to which entries are forgotten, in milliseconds: the one given, or now. Parts of a millisecond are dropped,
/// as they are where entries are dated, so that an entry begun at the time itself is covered.
pub(super) fn before(given: Option<Timestamp>, now_ms: u64) -> Result<u64, Error> {
    let Some(given) = given else {
        return Ok(now_ms);
    };
    let shown = given.to_string();
    let wrong = |allowed: &str| Error::of_field(ErrorKind::Malformed, "before", &shown, allowed);
    let time = SystemTime::try_from(given).map_err(|_| wrong("is not a time"))?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong("is before 1970"))?;
    let before_ms = u64::try_from(since.as_millis()).map_err(|_| wrong("is not a time"))?;
    if before_ms > now_ms {
        return Err(wrong("is in the future; at most the present is allowed"));
    }
    Ok(before_ms)
}

fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos })
    }

    #[test]
    fn no_time_means_now() {
        assert_eq!(before(None, 5_000), Ok(5_000));
    }

    #[test]
    fn a_part_of_the_present_millisecond_is_not_the_future() {
        assert_eq!(before(at(5, 400_000), 5_000), Ok(5_000));
        assert_eq!(before(at(1, 999_999), 5_000), Ok(1_000));
    }

    #[test]
    fn a_future_time_is_refused() {
        let error = before(at(6, 0), 5_000).unwrap_err();
        assert_eq!((error.kind, error.field.as_str()), (ErrorKind::Malformed, "before"));
    }

    #[test]
    fn a_time_before_1970_or_out_of_range_is_refused() {
        assert!(before(at(-6, 0), 5_000).is_err());
        assert!(before(at(i64::MAX, 0), 5_000).is_err());
    }
}
