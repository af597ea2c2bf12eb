//! Streams that their clients leave open end when the server does. Reflection's would hold the end up until its limit: a
//! tool keeps one as long as it runs. Health's and ours end by themselves.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::Frame;
use tokio::sync::watch;
use tonic::{Status, body::Body, codegen::Service};

use super::status;
use crate::error::{Error, ErrorKind};

/// The services whose streams are ended.
const REFLECTION: &str = "/grpc.reflection.";

/// Ends streams once the server stops.
#[derive(Clone)]
pub(super) struct Ending(pub(super) watch::Receiver<bool>);

/// A reply to come.
type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

#[derive(Clone)]
pub(super) struct Ends<S> {
    inner: S,
    stopped: watch::Receiver<bool>,
}

/// A reply that ends when it has nothing to say and the server stops.
struct Until {
    inner: Body,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
}

// === impl Ending ===

impl<S> tower_layer::Layer<S> for Ending {
    type Service = Ends<S>;

    fn layer(&self, inner: S) -> Ends<S> {
        Ends { inner, stopped: self.0.clone() }
    }
}

// === impl Ends ===

impl<S> Service<Request<Body>> for Ends<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Answer<S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_ended = request.uri().path().starts_with(REFLECTION);
        let answer = self.inner.call(request);
        if !is_ended {
            return Either::Left(answer);
        }
        let mut stopped = self.stopped.clone();
        let stopped = Box::pin(async move {
            // An error means that the server is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        Either::Right(Box::pin(async move {
            Ok(answer.await?.map(|inner| Body::new(Until { inner, stopped, has_ended: false })))
        }))
    }
}

// === impl Until ===

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if frame.is_pending() && self.stopped.as_mut().poll(context).is_ready() {
            self.has_ended = true;
            let draining = Error::new(ErrorKind::Draining, "the server is shutting down");
            let (mut head, ()) = status::of(&draining).into_http::<()>().into_parts();
            head.headers.remove(CONTENT_TYPE);
            return Poll::Ready(Some(Ok(Frame::trailers(head.headers))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }
}
