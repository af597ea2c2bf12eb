//! What every request of a leader goes through. Nothing is written once the Lease may be another's, however late a task
//! wakes; no answer is waited for without end; and a server that wants to be left alone for a while is.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;

/// How long an answer may take to begin. Watches begin at once too.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often a watch of one kind may begin. A server that ends each at once would be asked without a pause otherwise: that a
/// watch ends is no failure, and nothing else waits after it.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often a request is sent that the server puts off.
const TRIES: u32 = 5;
/// The longest that a server may put a request off. What is asked for later has failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Until when this replica leads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Term(Arc<Mutex<Option<Instant>>>);

/// Why a request was not sent, or has no answer.
#[derive(Debug, thiserror::Error)]
enum GateError {
    #[error("this replica leads no more")]
    Over,
    #[error("no answer within {ANSWER_WITHIN:?}")]
    NoAnswer,
}

#[derive(Clone)]
struct Gate {
    client: Client,
    term: Term,
    /// When a watch may begin, by its path. There are as many as there are kinds and namespaces that are watched.
    watches: Arc<Mutex<HashMap<String, Instant>>>,
}

/// A client that writes only during a term. The one that it goes by must not send a request again by itself: that could be
/// after the term.
pub(crate) fn client(client: Client, term: Term) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Gate { client, term, watches: Arc::default() }, namespace)
}

// === impl Term ===

impl Term {
    /// It lasts until then.
    pub(crate) fn extend(&self, until: Instant) {
        *self.0.lock() = Some(until);
    }

    /// It is over.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }

    fn lasts(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }
}

// === impl Gate ===

impl Gate {
    async fn send(&self, mut request: Request<Body>) -> kube::Result<Response<Body>> {
        if let Some(turn) = self.turn(&request) {
            sleep_until(turn).await;
        }
        for _ in 1..TRIES {
            let Some(again) = copy(&request) else { break };
            let answer = self.send_once(request).await?;
            let Some(pause) = pause(&answer) else { return Ok(answer) };
            drop(answer);
            sleep_until(Instant::now() + pause).await;
            request = again;
        }
        self.send_once(request).await
    }

    async fn send_once(&self, request: Request<Body>) -> kube::Result<Response<Body>> {
        let failed = |error: GateError| kube::Error::Service(error.into());
        if request.method() != Method::GET && !self.term.lasts() {
            return Err(failed(GateError::Over));
        }
        match timeout(ANSWER_WITHIN, self.client.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(failed(GateError::NoAnswer)),
        }
    }

    /// When a request may be sent, if it has to wait.
    fn turn(&self, request: &Request<Body>) -> Option<Instant> {
        let asked = request.uri().query().unwrap_or_default();
        if !asked.split('&').any(|pair| pair == "watch=true") {
            return None;
        }
        let mut watches = self.watches.lock();
        let next = watches.entry(request.uri().path().to_owned()).or_insert_with(Instant::now);
        let turn = (*next).max(Instant::now());
        *next = turn + WATCH_EVERY;
        Some(turn)
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, kube::Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move { gate.send(request).await })
    }
}

// === free functions ===

/// How long the server wants to be left alone.
fn pause(answer: &Response<Body>) -> Option<Duration> {
    let is_busy =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status());
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    let pause = Duration::from_secs(seconds);
    (is_busy && pause <= LONGEST_PAUSE).then_some(pause)
}

/// The same request once more; none when its body is read only once.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    Some(copy)
}
