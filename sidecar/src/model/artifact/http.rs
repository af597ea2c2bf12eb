//! Files of `http://` and `https://` servers, whole or from where a transfer broke off, and the client that all sources
//! over HTTP share.

use std::{sync::OnceLock, time::Duration};

use futures_util::StreamExt as _;
use reqwest::{
    Certificate, Client, RequestBuilder, Response, StatusCode,
    header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE},
    redirect,
};
use tokio::time::timeout;
use url::Url;

use super::{
    FetchCause,
    body::{Failure, FetchSettings, Opened},
    mounts::Secret,
};
use crate::{error::chain, model::refusal::quote};

/// Makes clients.
#[derive(Debug)]
pub(super) struct Clients {
    settings: FetchSettings,
    /// Made at the first fetch: a process that fetches nothing reads no certificates.
    plain: OnceLock<Client>,
}

/// A file at a URL.
pub(super) struct Remote {
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) authorization: Option<Authorization>,
}

/// What a server knows us by. It has no Debug: nothing may print it.
#[derive(Clone)]
pub(super) enum Authorization {
    Bearer(String),
    Basic { username: String, password: String },
}

/// The most redirects of one fetch.
const MAX_REDIRECTS: usize = 5;
/// The most time that an answer which has to be short may take, however slowly it drips.
const SHORT_ANSWER_TIME: Duration = Duration::from_secs(60);

// === impl Clients ===

impl Clients {
    pub(super) fn new(settings: FetchSettings) -> Self {
        Clients { settings, plain: OnceLock::new() }
    }

    /// The bounds of a fetch.
    pub(super) fn settings(&self) -> FetchSettings {
        self.settings
    }

    /// A client that trusts whom the system trusts, and whom `bundle` names.
    pub(super) fn get(&self, bundle: Option<&[u8]>) -> Result<Client, FetchCause> {
        if let Some(bundle) = bundle {
            return build(self.settings, certificates(bundle)?);
        }
        if let Some(client) = self.plain.get() {
            return Ok(client.clone());
        }
        let client = build(self.settings, Vec::new())?;
        Ok(self.plain.get_or_init(|| client).clone())
    }
}

// === impl Remote ===

impl Remote {
    pub(super) async fn open(&self, from: u64, validator: Option<&str>) -> Result<Opened, Failure> {
        let mut request = self.request();
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator {
                request = request.header(IF_RANGE, validator);
            }
        }
        let response = request.send().await.map_err(Failure::of)?;
        opened(response, from)
    }

    /// A request for it, with what the server knows us by.
    pub(super) fn request(&self) -> RequestBuilder {
        let request = self.client.get(&self.url);
        match &self.authorization {
            None => request,
            Some(authorization) => authorization.put_on(request),
        }
    }
}

// === impl Authorization ===

impl Authorization {
    /// What a Secret with the keys `token`, or `username` and `password`, says; `None`: the spec names none.
    ///
    /// # Errors
    /// It has neither.
    pub(super) fn of(secret: &Secret<'_>) -> Result<Option<Self>, FetchCause> {
        if matches!(secret, Secret::None) {
            return Ok(None);
        }
        if let Some(token) = secret.get("token", "EMBARK_HTTP_TOKEN") {
            return Ok(Some(Authorization::Bearer(token.to_owned())));
        }
        let username = secret.get("username", "EMBARK_HTTP_USERNAME");
        let password = secret.get("password", "EMBARK_HTTP_PASSWORD");
        match (username, password) {
            (Some(username), Some(password)) => Ok(Some(Authorization::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            })),
            _ => Err(secret.lacks(
                "token, or username and password",
                "EMBARK_HTTP_TOKEN, or EMBARK_HTTP_USERNAME and EMBARK_HTTP_PASSWORD",
            )),
        }
    }

    pub(super) fn put_on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Authorization::Bearer(token) => request.bearer_auth(token),
            Authorization::Basic { username, password } => {
                request.basic_auth(username, Some(password))
            }
        }
    }
}

// === impl Failure ===

impl Failure {
    /// Of a request that was not answered, or not to its end.
    pub(super) fn of(error: reqwest::Error) -> Self {
        let transient = error.is_connect()
            || error.is_timeout()
            || error.is_body()
            || error.is_decode()
            || (error.is_request() && !error.is_builder());
        // The error's own words hold the URL, credentials and all.
        let error = error.without_url();
        if error.is_timeout() {
            return Failure { transient, ..Failure::idle() };
        }
        let problem = format!("cannot be fetched: {}", chain(&error));
        let transient = transient && !error.is_redirect();
        Failure { transient, ..Failure::lasting(quote(problem)) }
    }

    /// Of a request that was answered with something else.
    pub(super) fn answered(status: StatusCode) -> Self {
        let transient = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Failure { transient, ..Failure::lasting(format!("answered {status}")) }
    }
}

// === free functions ===

/// Makes ring the process's TLS provider, unless one is installed already.
pub fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails only when another thread was first, with the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// The URL without what may be secret: credentials and the query.
pub(super) fn public_part(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "the URL".to_owned() };
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that can have no host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// A response to a request for a file from its byte `from` on.
pub(super) fn opened(response: Response, from: u64) -> Result<Opened, Failure> {
    let status = response.status();
    let (begins, total) = match status {
        StatusCode::OK => (0, response.content_length()),
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
            let (begins, total) = content_range(response.headers());
            match begins {
                // It has ended at the very byte that was asked for.
                None if status == StatusCode::RANGE_NOT_SATISFIABLE && total == Some(from) => {
                    let body = futures_util::stream::empty().boxed();
                    return Ok(Opened { from, total, validator: None, body });
                }
                Some(begins) if status == StatusCode::PARTIAL_CONTENT && begins == from => {
                    (begins, total)
                }
                _ => {
                    let problem = format!("answered {status} for a part that was not asked for");
                    return Err(Failure { start_over: true, ..Failure::transient(problem) });
                }
            }
        }
        status => return Err(Failure::answered(status)),
    };
    let validator = strong_validator(response.headers());
    let body = response.bytes_stream().map(|chunk| chunk.map_err(Failure::of)).boxed();
    Ok(Opened { from: begins, total, validator, body })
}

/// The whole of an answer that has to be short.
pub(super) async fn small(mut response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
    let read = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
            if bytes.len() + chunk.len() > limit {
                return Err(Failure::lasting(format!("answered with more than {limit} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    timeout(SHORT_ANSWER_TIME, read).await.unwrap_or_else(|_| Err(Failure::idle()))
}

/// Where a part begins and how long the whole is, of `bytes 5-9/10` or `bytes */10`.
fn content_range(headers: &HeaderMap) -> (Option<u64>, Option<u64>) {
    let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let Some((range, total)) = value.and_then(|v| v.strip_prefix("bytes ")?.split_once('/')) else {
        return (None, None);
    };
    let begins = range.split_once('-').and_then(|(begins, _)| begins.trim().parse().ok());
    (begins, total.trim().parse().ok())
}

/// The ETag that promises equal bytes. A weak one does not.
fn strong_validator(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    tag.starts_with('"').then(|| tag.to_owned())
}

fn certificates(bundle: &[u8]) -> Result<Vec<Certificate>, FetchCause> {
    let wrong = |problem: String| FetchCause::Reference { problem, transient: false };
    let certificates = Certificate::from_pem_bundle(bundle)
        .map_err(|error| wrong(format!("the CA bundle cannot be read: {}", quote(error))))?;
    if certificates.is_empty() {
        return Err(wrong("the CA bundle holds no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}

fn build(settings: FetchSettings, trusted: Vec<Certificate>) -> Result<Client, FetchCause> {
    // Without a provider the client's builder panics.
    install_tls_provider();
    let builder = Client::builder()
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.idle_timeout)
        .redirect(redirect::Policy::custom(follow))
        .referer(false)
        .tls_certs_merge(trusted)
        .user_agent(concat!("embark-sidecar/", env!("CARGO_PKG_VERSION")));
    let builder = if settings.proxy { builder } else { builder.no_proxy() };
    builder.build().map_err(|error| {
        let Failure { problem, transient, .. } = Failure::of(error);
        FetchCause::Reference { problem, transient }
    })
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
    }
    let was_secure = attempt.previous().iter().any(|url| url.scheme() == "https");
    if was_secure && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to http");
    }
    attempt.follow()
}
