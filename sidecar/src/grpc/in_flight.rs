//! Bytes of requests and replies that are in flight, all connections together. A message is decoded when it is there as a
//! whole, so what many large ones hold meanwhile would have no bound but their number.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use tonic::{Status, body::Body, codegen::Service};

use super::status;
use crate::error::{Error, ErrorKind};

/// The share of the process's memory that may be in flight: one in this many.
const SHARE: u64 = 8;
/// As much may be in flight however little memory there is, in largest requests.
const LEAST_REQUESTS: u64 = 2;

/// What may be in flight.
#[derive(Clone)]
pub(super) struct InFlight(Arc<Budget>);

struct Budget {
    most: u64,
    taken: AtomicU64,
    /// Counts calls that were refused.
    refused: Counter,
}

/// Counts the bytes of every call through a service.
#[derive(Clone)]
pub(super) struct Counting<S> {
    inner: S,
    budget: Arc<Budget>,
}

/// What one call holds; given back when both of its bodies are gone.
struct Hold {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

/// A body whose bytes are counted as they pass.
struct Counted {
    inner: Body,
    hold: Arc<Hold>,
    /// Whether it is refused when there is too much: a reply is not.
    may_be_refused: bool,
}

// === impl InFlight ===

impl InFlight {
    /// A share of this memory, in which requests of this size have room; calls that find none are counted.
    pub(super) fn of(memory_bytes: u64, largest_request: u64, refused: Counter) -> Self {
        let most = (memory_bytes / SHARE).max(largest_request * LEAST_REQUESTS);
        InFlight(Arc::new(Budget { most, taken: AtomicU64::new(0), refused }))
    }
}

impl<S> tower_layer::Layer<S> for InFlight {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, budget: Arc::clone(&self.0) }
    }
}

// === impl Counting ===

impl<S> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (budget, bytes) = (Arc::clone(&self.budget), AtomicU64::new(0));
        let hold = Arc::new(Hold { budget, bytes });
        let counted =
            |inner, hold, may_be_refused| Body::new(Counted { inner, hold, may_be_refused });
        let ours = Arc::clone(&hold);
        let answer = self.inner.call(request.map(|body| counted(body, hold, true)));
        Box::pin(async move { Ok(answer.await?.map(|body| counted(body, ours, false))) })
    }
}

// === impl Hold ===

impl Hold {
    /// Takes more; `false`: there is too much.
    fn take(&self, bytes: u64) -> bool {
        let before = self.budget.taken.fetch_add(bytes, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        before + bytes <= self.budget.most
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(*self.bytes.get_mut(), Ordering::AcqRel);
    }
}

// === impl Counted ===

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.hold.take(data.len() as u64)
            && self.may_be_refused
        {
            self.hold.budget.refused.inc();
            return Poll::Ready(Some(Err(too_much(self.hold.budget.most))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === free functions ===

fn too_much(most: u64) -> Status {
    let sentence = format!("more than {most} bytes of requests and replies are in flight already");
    status::of(&Error::new(ErrorKind::Memory, sentence))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;
    use tonic::Code;

    use super::*;

    impl InFlight {
        fn body(&self, bytes: usize, may_be_refused: bool) -> Counted {
            let hold = Hold { budget: Arc::clone(&self.0), bytes: AtomicU64::new(0) };
            let inner = Body::new(axum::body::Body::from(vec![0; bytes]));
            Counted { inner, hold: Arc::new(hold), may_be_refused }
        }
    }

    async fn next(body: &mut Counted) -> Result<usize, Status> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        Ok(frame.expect("a frame")?.data_ref().expect("data").len())
    }

    #[tokio::test]
    async fn a_request_past_the_budget_is_refused_and_what_is_over_gives_room() {
        let in_flight = InFlight::of(0, 100, Counter::default());
        let mut first = in_flight.body(150, true);
        assert_eq!(next(&mut first).await.unwrap(), 150);
        let mut second = in_flight.body(100, true);
        let refused = next(&mut second).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
        assert_eq!(in_flight.0.refused.get(), 1);
        drop(second);
        drop(first);
        assert_eq!(in_flight.0.taken.load(Ordering::Acquire), 0);
        assert_eq!(next(&mut in_flight.body(200, true)).await.unwrap(), 200);
    }

    #[tokio::test]
    async fn a_reply_is_counted_and_never_refused() {
        let in_flight = InFlight::of(0, 100, Counter::default());
        let mut reply = in_flight.body(500, false);
        assert_eq!(next(&mut reply).await.unwrap(), 500);
        assert!(next(&mut in_flight.body(1, true)).await.is_err());
        drop(reply);
        assert!(next(&mut in_flight.body(1, true)).await.is_ok());
    }

    #[test]
    fn two_of_the_largest_requests_always_have_room() {
        assert_eq!(InFlight::of(80_000, 100, Counter::default()).0.most, 10_000);
        assert_eq!(InFlight::of(800, 100, Counter::default()).0.most, 200);
    }
}
