//! Streams that their clients leave open end when the server does. Reflection's would hold the end up until its limit: a
//! tool keeps one as long as it runs. Health's and ours end by themselves.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use tokio::sync::watch;
use tonic::{Status, body::Body, codegen::Service};

/// The services whose streams are ended.
const REFLECTION: &str = "/grpc.reflection.";

/// Ends streams once the server stops.
#[derive(Clone)]
pub(super) struct Ending(pub(super) watch::Receiver<bool>);

#[derive(Clone)]
pub(super) struct Ends<S> {
    inner: S,
    stopped: watch::Receiver<bool>,
}

/// What a client sends, which ends when nothing more of it is there and the server stops: what answers it ends then too.
struct Until {
    inner: Body,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

// === impl Ending ===

impl<S> tower_layer::Layer<S> for Ending {
    type Service = Ends<S>;

    fn layer(&self, inner: S) -> Ends<S> {
        Ends { inner, stopped: self.0.clone() }
    }
}

// === impl Ends ===

impl<S: Service<Request<Body>>> Service<Request<Body>> for Ends<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !request.uri().path().starts_with(REFLECTION) {
            return self.inner.call(request);
        }
        let mut stopped = self.stopped.clone();
        let stopped = Box::pin(async move {
            // An error means that the server is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        self.inner.call(request.map(|inner| Body::new(Until { inner, stopped })))
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
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if frame.is_pending() && self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        frame
    }
}
