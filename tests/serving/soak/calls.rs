//! One call of a soak: what it asks for, and whether an answer is one that it may be given.

use std::time::Duration;

use embark_sidecar::pb::client::{
    CacheControl, EmbedRequest, EmbedResponse, ItemError, ItemResult, OnMiss, Priority, Source,
};
use embark_tests::{
    Random,
    manifest::{NOT_FINITE, PANICS},
    sidecar::{difference, request},
};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{DIMENSIONS, TOLERANCE, callers::Tally, reference::Reference};

/// What the ages of entries may be off by: the server's are by the wall clock, ours are not.
const CLOCKS: Duration = Duration::from_secs(1);

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A text with a vector, by its number.
    Text(usize),
    /// One that makes the runtime panic.
    Panics,
    /// One whose vector is not finite.
    NotFinite,
    /// No text at all.
    Empty,
}

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) request: EmbedRequest,
    pub(super) timeout: Option<Duration>,
    kinds: Vec<Kind>,
    began: Instant,
    /// Entries of before this are forgotten.
    forgotten: Option<Instant>,
}

// === impl Call ===

impl Call {
    pub(super) fn new(
        random: &mut Random,
        reference: &Reference,
        forgotten: Option<Instant>,
    ) -> Self {
        let most = [1, 4, 24][random.index(3)];
        let mut kind = |_| match random.below(300) {
            0 | 1 => Kind::Panics,
            2 | 3 => Kind::NotFinite,
            4 => Kind::Empty,
            _ => Kind::Text(reference.choose(random)),
        };
        let kinds: Vec<Kind> = (0..most).map(&mut kind).collect();
        let text = |kind: &Kind| match kind {
            Kind::Text(number) => reference.texts[*number].clone(),
            Kind::Panics => format!("{PANICS} {}", kinds.len()),
            Kind::NotFinite => format!("{NOT_FINITE} {}", kinds.len()),
            Kind::Empty => String::new(),
        };
        let texts: Vec<String> = kinds.iter().map(text).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let request = wishing(request(&texts), random, reference);
        let timeout = (random.below(4) == 0).then(|| Duration::from_millis(2 + random.below(400)));
        Call { request, timeout, kinds, began: Instant::now(), forgotten }
    }

    /// The call as it is sent.
    pub(super) fn to_send(&self) -> tonic::Request<EmbedRequest> {
        let mut asked = tonic::Request::new(self.request.clone());
        if let Some(timeout) = self.timeout {
            asked.set_timeout(timeout);
        }
        asked
    }

    /// Checks an answer, item by item.
    pub(super) fn check(&self, reply: &EmbedResponse, reference: &Reference, tally: &mut Tally) {
        assert_eq!(reply.space_id, reference.space);
        assert_eq!(reply.results.len(), self.kinds.len(), "{:?}", self.request);
        for (kind, result) in self.kinds.iter().zip(&reply.results) {
            match &result.error {
                Some(error) => {
                    assert!(result.vector.is_empty() && result.source == 0, "{result:?}");
                    self.check_item_error(&[*kind], error);
                    tally.count(&error.reason);
                }
                None => {
                    self.check_vector(*kind, result, reference);
                    let name = result.source().as_str_name();
                    tally.count(name.strip_prefix("SOURCE_").unwrap_or(name));
                }
            }
        }
    }

    /// Checks what a whole call failed with.
    pub(super) fn check_refusal(&self, refused: &Status, tally: &mut Tally) {
        let late = self.timeout.is_some_and(|timeout| self.began.elapsed() >= timeout);
        // What the transports' own timers say on either side, on a machine so busy that they are first.
        if refused.code() == Code::Cancelled && late {
            return tally.count("late");
        }
        let info = refused.get_details_error_info();
        let info = info.unwrap_or_else(|| panic!("without a reason: {refused:?}"));
        assert_eq!(info.domain, "embark.dev");
        let retry = refused.get_details_retry_info().and_then(|info| info.retry_delay);
        let pushback = refused.metadata().get("grpc-retry-pushback-ms");
        assert_eq!(retry.is_some(), pushback.is_some(), "{refused:?}");
        let retry_after_ms = u32::try_from(retry.unwrap_or_default().as_millis()).unwrap();
        self.check_error((refused.code(), &info.reason), retry_after_ms);
        tally.count(&info.reason);
    }

    /// The same of a batch of a stream.
    pub(super) fn check_error_of_all(&self, error: &ItemError, tally: &mut Tally) {
        self.check_item_error(&self.kinds, error);
        tally.count(&error.reason);
    }

    fn check_item_error(&self, kinds: &[Kind], error: &ItemError) {
        assert!(error.message.len() > 15, "not a sentence: {error:?}");
        let of_these = Call { kinds: kinds.to_vec(), ..self.clone() };
        of_these.check_error((Code::from(error.code), &error.reason), error.retry_after_ms);
    }

    /// Checks that a failure is one of those that may come, with its code, and says when to try again if that is of use.
    fn check_error(&self, (code, reason): (Code, &str), retry_after_ms: u32) {
        let is = |kind| self.kinds.contains(&kind);
        let cache = self.request.cache.unwrap_or_default();
        let may_miss = cache.only_if_cached || self.request.on_miss() != OnMiss::Wait;
        let (expected, may_be) = match reason {
            "MISS" => (Code::NotFound, may_miss),
            "TEXT_EMPTY" => (Code::InvalidArgument, is(Kind::Empty)),
            "QUEUE_FULL" => (Code::ResourceExhausted, true),
            // Without a deadline of its own a call has one of 30 s, far above what the queue holds.
            "WAIT_TOO_LONG" => (Code::ResourceExhausted, self.timeout.is_some()),
            "DEADLINE_EXCEEDED" => (Code::DeadlineExceeded, self.has_a_deadline()),
            "INFERENCE" => (Code::Internal, is(Kind::Panics)),
            "NOT_FINITE" => (Code::Internal, is(Kind::NotFinite)),
            _ => (Code::Ok, false),
        };
        assert!(may_be && code == expected, "{code:?} {reason}, {self:?}");
        assert_eq!(retry_after_ms > 0, code == Code::ResourceExhausted, "{reason}");
    }

    /// Whether time may run out: its own, or that of a call without, on a machine that does nothing for 30 s.
    fn has_a_deadline(&self) -> bool {
        self.timeout.is_some() || self.began.elapsed() > Duration::from_secs(25)
    }

    fn check_vector(&self, kind: Kind, result: &ItemResult, reference: &Reference) {
        let (source, dimensions) = (result.source(), self.request.dimensions as usize);
        self.check_source(result);
        let length = match dimensions {
            0 => usize::try_from(DIMENSIONS).unwrap(),
            _ => dimensions,
        };
        let expected = if self.request.omit_vectors { 0 } else { length };
        assert_eq!(result.vector.len(), expected, "{source:?}");
        match (source, kind) {
            // Every policy's default vector has one value all along.
            (Source::Default, _) => {
                assert!(result.vector.windows(2).all(|two| two[0].to_bits() == two[1].to_bits()));
            }
            (_, Kind::Text(_)) if self.request.omit_vectors => {}
            (_, Kind::Text(text)) => {
                let off = difference(&result.vector, &reference.cut(text, dimensions));
                assert!(off <= TOLERANCE, "off by {off}, {source:?}, text {text}, {self:?}");
            }
            _ => panic!("{kind:?} has a vector from {source:?}"),
        }
    }

    /// Checks that a source is one that was asked for, and no older.
    fn check_source(&self, result: &ItemResult) {
        let (source, age) = (result.source(), Duration::from_millis(result.age_ms));
        let cache = self.request.cache.unwrap_or_default();
        let is_remembered = matches!(source, Source::HitMemory | Source::HitDisk | Source::Stale);
        assert!(!(cache.no_cache && is_remembered), "{source:?} for no_cache");
        assert!(!cache.only_if_cached || is_remembered, "{source:?} for only_if_cached");
        if !is_remembered {
            return;
        }
        if let Some(most) = cache.max_age {
            assert!(age <= Duration::try_from(most).unwrap(), "{age:?} old, {self:?}");
        }
        if let Some(forgotten) = self.forgotten {
            let most = forgotten.elapsed() + CLOCKS;
            assert!(age <= most, "{age:?} old, but all was forgotten {most:?} ago: {self:?}");
        }
    }
}

// === free functions ===

/// The request with some of the wishes that there are.
fn wishing(request: EmbedRequest, random: &mut Random, reference: &Reference) -> EmbedRequest {
    let mut one_in = |count| random.below(count) == 0;
    let mut cache =
        CacheControl { no_cache: one_in(4), no_store: one_in(10), ..CacheControl::default() };
    // Wishes that contradict each other are refused.
    let (fails, defaults) = (one_in(12) && !cache.no_cache, one_in(12) && !cache.no_store);
    let is_bulk = one_in(3);
    cache.only_if_cached = !cache.no_cache && one_in(10);
    let (omit_vectors, include_timings, is_cut) = (one_in(10), one_in(10), one_in(10));
    let (expects, has_budget, is_young) = (one_in(10), one_in(10), one_in(8));
    let milliseconds = |number: u64| {
        Some(prost_types::Duration::try_from(Duration::from_millis(number)).expect("in range"))
    };
    cache.max_age = is_young.then(|| milliseconds(random.below(8000))).flatten();
    let on_miss = match (fails, defaults, random.below(2)) {
        (true, ..) => OnMiss::Fail,
        (_, true, _) => OnMiss::Default,
        (.., 0) => OnMiss::Wait,
        _ => OnMiss::Unspecified,
    };
    let may_budget = has_budget && matches!(on_miss, OnMiss::Wait | OnMiss::Unspecified);
    EmbedRequest {
        cache: Some(cache),
        on_miss: on_miss.into(),
        wait_budget: may_budget.then(|| milliseconds(random.below(30))).flatten(),
        priority: if is_bulk { Priority::Bulk } else { Priority::Interactive }.into(),
        omit_vectors,
        include_timings,
        dimensions: if is_cut { 64 } else { 0 },
        expect_space_id: if expects { reference.space.clone() } else { String::new() },
        ..request
    }
}
