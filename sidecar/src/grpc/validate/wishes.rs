//! What a caller wants done about items that are not cached.

use std::time::Duration;

use embark_crds::contract;

use crate::{
    error::{Error, ErrorKind},
    input::{CacheControl, Class, Wishes},
    pb::server::{EmbedRequest, OnMiss, Priority},
};

/// The wishes of a message.
///
/// # Errors
/// They contradict each other, or are no values of their fields.
pub(super) fn wishes(message: &EmbedRequest) -> Result<Wishes, Error> {
    let on_miss = on_miss(message.on_miss)?;
    let wait_budget = duration("wait_budget", message.wait_budget)?;
    if wait_budget.is_some() && on_miss.is_some_and(|on_miss| on_miss != contract::OnMiss::Wait) {
        let name = OnMiss::try_from(message.on_miss).map_or("", |on_miss| on_miss.as_str_name());
        let allowed = "does not wait; with wait_budget, ON_MISS_WAIT is allowed";
        return Err(Error::of_field(ErrorKind::Malformed, "on_miss", name, allowed));
    }
    let cache = cache(message)?;
    let contradiction = match on_miss {
        Some(contract::OnMiss::Fail) if cache.no_cache => {
            Some("cache.no_cache, by which every item is a miss")
        }
        Some(contract::OnMiss::ReturnDefault) if cache.no_store => {
            Some("cache.no_store, by which nothing is computed for later")
        }
        _ => None,
    };
    if let Some(other) = contradiction {
        let allowed = format!("contradicts {other}; one of them is allowed");
        let name = OnMiss::try_from(message.on_miss).map_or("", |on_miss| on_miss.as_str_name());
        return Err(Error::of_field(ErrorKind::Malformed, "on_miss", name, allowed));
    }
    Ok(Wishes { on_miss, wait_budget, cache, class: class(message.priority)? })
}

fn on_miss(value: i32) -> Result<Option<contract::OnMiss>, Error> {
    match OnMiss::try_from(value) {
        Ok(OnMiss::Unspecified) => Ok(None),
        Ok(OnMiss::Wait) => Ok(Some(contract::OnMiss::Wait)),
        Ok(OnMiss::Default) => Ok(Some(contract::OnMiss::ReturnDefault)),
        Ok(OnMiss::Fail) => Ok(Some(contract::OnMiss::Fail)),
        Err(_) => Err(unknown("on_miss", value, OnMiss::Fail.into())),
    }
}

fn class(value: i32) -> Result<Class, Error> {
    match Priority::try_from(value) {
        Ok(Priority::Unspecified | Priority::Interactive) => Ok(Class::Waiting),
        Ok(Priority::Bulk) => Ok(Class::Background),
        Err(_) => Err(unknown("priority", value, Priority::Bulk.into())),
    }
}

fn cache(message: &EmbedRequest) -> Result<CacheControl, Error> {
    let given = message.cache.unwrap_or_default();
    if given.no_cache && given.only_if_cached {
        let allowed = "contradicts cache.no_cache; one of them is allowed";
        let field = "cache.only_if_cached";
        return Err(Error::of_field(ErrorKind::Malformed, field, "true", allowed));
    }
    Ok(CacheControl {
        no_cache: given.no_cache,
        no_store: given.no_store,
        only_if_cached: given.only_if_cached,
        max_age: duration("cache.max_age", given.max_age)?,
    })
}

fn duration(field: &str, given: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let Some(given) = given else { return Ok(None) };
    // The conversion overflows for the least number of seconds, which a caller may well send.
    let converted = if given.seconds < 0 { None } else { Duration::try_from(given).ok() };
    converted.map(Some).ok_or_else(|| {
        let shown = format!("{}s {}ns", given.seconds, given.nanos);
        let allowed = "is negative or out of range; 0s and more is allowed";
        Error::of_field(ErrorKind::Malformed, field, &shown, allowed)
    })
}

fn unknown(field: &str, value: i32, last: i32) -> Error {
    let allowed = format!("is not a value of the enum; 0 to {last} are allowed");
    Error::of_field(ErrorKind::Malformed, field, &value.to_string(), allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::server as pb;

    #[test]
    fn wishes_that_contradict_each_other_are_named() {
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let least = Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MIN });
        let both = pb::CacheControl { no_cache: true, only_if_cached: true, ..Default::default() };
        let old = pb::CacheControl { max_age: negative, ..Default::default() };
        let anew = pb::CacheControl { no_cache: true, ..Default::default() };
        let not_kept = pb::CacheControl { no_store: true, ..Default::default() };
        let message = EmbedRequest::default;
        let cases = [
            (EmbedRequest { on_miss: 7, ..message() }, "on_miss"),
            (EmbedRequest { on_miss: 2, wait_budget: second, ..message() }, "on_miss"),
            (EmbedRequest { on_miss: 3, wait_budget: second, ..message() }, "on_miss"),
            (EmbedRequest { on_miss: 3, cache: Some(anew), ..message() }, "on_miss"),
            (EmbedRequest { on_miss: 2, cache: Some(not_kept), ..message() }, "on_miss"),
            (EmbedRequest { wait_budget: negative, ..message() }, "wait_budget"),
            (EmbedRequest { wait_budget: least, ..message() }, "wait_budget"),
            (EmbedRequest { priority: 9, ..message() }, "priority"),
            (EmbedRequest { cache: Some(both), ..message() }, "cache.only_if_cached"),
            (EmbedRequest { cache: Some(old), ..message() }, "cache.max_age"),
        ];
        for (message, field) in cases {
            let error = wishes(&message).unwrap_err();
            assert_eq!((error.kind, error.field.as_str()), (ErrorKind::Malformed, field));
        }
    }

    #[test]
    fn nothing_said_is_nothing_wished() {
        assert_eq!(wishes(&EmbedRequest::default()), Ok(Wishes::default()));
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        for on_miss in [0, 1] {
            let message = EmbedRequest { on_miss, wait_budget: second, ..Default::default() };
            assert_eq!(wishes(&message).unwrap().wait_budget, Some(Duration::from_secs(1)));
        }
    }
}
