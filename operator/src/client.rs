//! The client of the cluster that counts what it asks for.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use tower_layer::Layer;
use tower_service::Service;

use crate::metrics::Metrics;

/// Counts requests and how they were answered.
#[derive(Clone)]
pub(crate) struct Counting(Arc<Metrics>);

/// A service whose requests are counted.
pub(crate) struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

// === impl Counting ===

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: Arc::clone(&self.0) }
    }
}

// === impl Counted ===

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, metrics) = (verb(&request), Arc::clone(&self.metrics));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            metrics.requested(verb, code);
            answer
        })
    }
}

// === free functions ===

/// A client whose requests are counted.
///
/// # Errors
/// What the configuration says cannot be used.
pub(crate) fn counted(config: kube::Config, metrics: &Arc<Metrics>) -> kube::Result<kube::Client> {
    let layer = Counting(Arc::clone(metrics));
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// What a request is for, as far as it shows: one of a closed list.
fn verb(request: &Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query.split('&').any(|pair| ["watch=true", "watch=1"].contains(&pair));
    match *request.method() {
        Method::GET if is_watch => "watch",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_told_from_a_look() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/pods?limit=500", "get"),
            ("GET", "/api/v1/pods?&watch=true&timeoutSeconds=290", "watch"),
            ("PATCH", "/api/v1/namespaces/x/services/watch=true", "patch"),
            ("OPTIONS", "/", "other"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            assert_eq!(verb(&request), expected, "{method} {uri}");
        }
    }
}
