//! Who may call: those who show a token, where one is asked for. Health and reflection are open to everybody, since
//! probes and tools ask for them before they know one.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tonic::{body::Body, codegen::Service};

use super::status;
use crate::{
    error::{Error, ErrorKind},
    metrics::EndpointMetrics,
    secrets::{Rotating, tokens::Tokens},
};

/// The services that are open to everybody.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];
/// How a token is shown (RFC 6750).
const SCHEME: &str = "bearer";
/// What is allowed, for sentences. The value is in none.
const ALLOWED: &str = "Bearer TOKEN, with a token that the server knows";

/// Asks for a token, where the door is not open.
#[derive(Clone)]
pub(super) struct Auth(Option<Arc<Door>>);

struct Door {
    tokens: Arc<Rotating<Tokens>>,
    metrics: EndpointMetrics,
}

/// A service behind the door.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    auth: Auth,
}

// === impl Auth ===

impl Auth {
    /// Asks for one of these; `None`: for nothing.
    pub(super) fn by(tokens: Option<Arc<Rotating<Tokens>>>, metrics: EndpointMetrics) -> Self {
        Auth(tokens.map(|tokens| Arc::new(Door { tokens, metrics })))
    }

    fn admits(&self, path: &str, headers: &HeaderMap) -> Result<(), Error> {
        let Some(door) = &self.0 else { return Ok(()) };
        if OPEN.iter().any(|open| path.starts_with(open)) {
            return Ok(());
        }
        let what = match headers.get(AUTHORIZATION).map(|value| token(value.as_bytes())) {
            Some(Some(token)) if door.tokens.load().know(token) => return Ok(()),
            Some(Some(_)) => "has a token that the server does not know",
            Some(None) => "is not a bearer token",
            None => "is missing",
        };
        door.metrics.unauthenticated();
        Err(unauthenticated(what))
    }
}

impl<S> tower_layer::Layer<S> for Auth {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, auth: self.clone() }
    }
}

// === impl Guarded ===

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.auth.admits(request.uri().path(), request.headers()) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(error) => Either::Left(ready(Ok(status::of(&error).into_http()))),
        }
    }
}

// === free functions ===

/// The token of a header's value.
fn token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && !token.is_empty()).then_some(token)
}

fn unauthenticated(what: &str) -> Error {
    let field = AUTHORIZATION.as_str();
    let sentence = format!("{field}: {what}; it must be {ALLOWED}");
    Error::new(ErrorKind::Unauthenticated, sentence).about(field, "").allowing(ALLOWED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_behind_its_scheme() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER abc", Some("abc")),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("", None),
        ] {
            let found = token(value.as_bytes()).map(|token| std::str::from_utf8(token).unwrap());
            assert_eq!(found, expected, "{value:?}");
        }
    }
}
