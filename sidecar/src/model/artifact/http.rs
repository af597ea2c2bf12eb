//! Files of `http://` and `https://` servers: streamed, hashed on the way, bounded in size, idle time and tries.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use embark_crds::contract::Sha256;
use reqwest::{Client, Response, StatusCode, redirect};
use sha2::Digest;
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};
use url::Url;

use super::{FetchCause, Progress, Request, Temporary};
use crate::model::refusal::quote;

/// The bounds of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The most time to connect.
    pub connect_timeout: Duration,
    /// The most time without a byte.
    pub idle_timeout: Duration,
    /// How often a transient failure is tried in all; at least 1.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each, up to [`HttpSettings::longest_backoff`].
    pub backoff: Duration,
    /// The most time between two tries.
    pub longest_backoff: Duration,
    /// Whether the environment's proxy settings are honoured.
    pub proxy: bool,
}

/// Fetches files.
#[derive(Debug)]
pub(super) struct Fetcher {
    settings: HttpSettings,
    /// Made at the first fetch: a process that fetches nothing reads no certificates.
    client: OnceLock<Client>,
}

/// A file that was received whole: its bytes, their digest, and its copy on disk.
pub(super) type Received = (Bytes, Sha256, Option<Temporary>);

/// Why one try failed.
struct Failure {
    problem: String,
    transient: bool,
}

/// The most redirects of one fetch.
const MAX_REDIRECTS: usize = 5;
/// Bytes between two reports of progress.
const PROGRESS_STEP_BYTES: u64 = 1024 * 1024;
/// The most memory that is set aside on the word of a Content-Length alone.
const TRUSTED_LENGTH_BYTES: u64 = 64 * 1024 * 1024;

// === impl HttpSettings ===

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            tries: 5,
            backoff: Duration::from_millis(500),
            longest_backoff: Duration::from_secs(8),
            proxy: true,
        }
    }
}

// === impl Fetcher ===

impl Fetcher {
    pub(super) fn new(settings: HttpSettings) -> Self {
        Fetcher { settings, client: OnceLock::new() }
    }

    /// Fetches `url`. Its bytes are written to what `temporary` makes as well, while that goes well.
    pub(super) async fn get<F>(
        &self,
        url: &str,
        request: &Request<'_>,
        temporary: impl Fn() -> F,
    ) -> Result<Received, FetchCause>
    where
        F: Future<Output = Option<Temporary>>,
    {
        let mut backoff = self.settings.backoff;
        for tried in 1.. {
            let failure = match self.attempt(url, request, temporary().await).await {
                Ok(received) => return received,
                Err(failure) => failure,
            };
            let (url, problem) = (public_part(url), failure.problem);
            if !failure.transient || tried >= self.settings.tries.max(1) {
                let times = if tried == 1 { String::new() } else { format!(" ({tried} tries)") };
                let (problem, transient) = (format!("{problem}{times}"), failure.transient);
                return Err(FetchCause::Http { url, problem, transient });
            }
            info!(url, problem, tried, ?backoff, "a fetch failed and is tried again");
            pause(backoff).await;
            backoff = (backoff * 2).min(self.settings.longest_backoff);
        }
        unreachable!("the last try returns")
    }

    /// One try; the inner error is for good and no matter of the server.
    async fn attempt(
        &self,
        url: &str,
        request: &Request<'_>,
        temporary: Option<Temporary>,
    ) -> Result<Result<Received, FetchCause>, Failure> {
        let client = self.client()?;
        let response = client.get(url).send().await.map_err(Failure::of)?;
        let status = response.status();
        if status != StatusCode::OK {
            let transient = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
            let problem = format!("answered {status}");
            return Err(Failure { problem, transient });
        }
        if response.content_length().is_some_and(|length| length > request.size_limit) {
            return Ok(Err(FetchCause::TooLarge { limit: request.size_limit }));
        }
        receive(response, request, temporary).await
    }

    fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let settings = &self.settings;
        // Without a provider the client's builder panics.
        install_tls_provider();
        let builder = Client::builder()
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.idle_timeout)
            .redirect(redirect::Policy::custom(follow))
            .referer(false)
            .user_agent(concat!("embark-sidecar/", env!("CARGO_PKG_VERSION")));
        let builder = if settings.proxy { builder } else { builder.no_proxy() };
        let client = builder.build().map_err(Failure::of)?;
        Ok(self.client.get_or_init(|| client))
    }
}

// === impl Failure ===

impl Failure {
    fn of(error: reqwest::Error) -> Self {
        let transient = error.is_connect()
            || error.is_timeout()
            || error.is_body()
            || error.is_decode()
            || (error.is_request() && !error.is_builder());
        // The error's own words hold the URL, credentials and all.
        let error = error.without_url();
        if error.is_timeout() {
            return Failure { problem: "did not answer in time".to_owned(), transient };
        }
        let mut problem = format!("cannot be fetched: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            problem = format!("{problem}: {cause}");
            source = cause.source();
        }
        Failure { problem: quote(problem), transient: transient && !error.is_redirect() }
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

async fn receive(
    mut response: Response,
    request: &Request<'_>,
    mut temporary: Option<Temporary>,
) -> Result<Result<Received, FetchCause>, Failure> {
    let total = response.content_length();
    let expected = total.unwrap_or(0).min(TRUSTED_LENGTH_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    let mut hasher = sha2::Sha256::new();
    let mut reported = 0;
    (request.progress)(Progress::Fetching { bytes: 0, total });
    while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
        let length = bytes.len() as u64 + chunk.len() as u64;
        if length > request.size_limit {
            return Ok(Err(FetchCause::TooLarge { limit: request.size_limit }));
        }
        hasher.update(&chunk);
        bytes.extend_from_slice(&chunk);
        temporary = write(temporary, &chunk).await;
        if length - reported >= PROGRESS_STEP_BYTES {
            reported = length;
            (request.progress)(Progress::Fetching { bytes: length, total });
        }
    }
    (request.progress)(Progress::Fetching { bytes: bytes.len() as u64, total });
    Ok(Ok((bytes.into(), Sha256(hasher.finalize().into()), temporary)))
}

/// Writes on; a disk that is full costs the copy, not the fetch.
async fn write(temporary: Option<Temporary>, chunk: &[u8]) -> Option<Temporary> {
    let mut temporary = temporary?;
    match temporary.file.write_all(chunk).await {
        Ok(()) => Some(temporary),
        Err(error) => {
            warn!(file = %temporary.path.display(), %error, "a fetched model cannot be kept");
            None
        }
    }
}

/// The URL without what may be secret: credentials and the query.
fn public_part(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "the URL".to_owned() };
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that can have no host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[expect(clippy::disallowed_methods, reason = "time itself is what a back-off waits for")]
async fn pause(backoff: Duration) {
    tokio::time::sleep(backoff).await;
}
