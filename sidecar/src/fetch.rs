//! Images by their URL: fetched ahead of the batch queue, never on a worker and never on a thread that computes. Whoever
//! gives a URL is taken for hostile, and so is the server that it names. Which URLs are allowed is the matter of
//! [`ImageUrl`]: it judges the caller's, and each that a server redirects to.
//!
//! ```text
//! gate       whose turn it is: so many at a time, in all and of one host; those first that somebody waits for
//! resolver   the host's addresses, asked for once: those that are judged are those that are connected to
//! addresses  which addresses are connected to; pure
//! answer     status, type and length, before a byte of the body is read
//! ```
//!
//! A fetch sends nothing but the URL: no credentials, no cookies, no referer, and by no proxy.

mod addresses;
mod answer;
mod gate;
mod resolver;
#[cfg(test)]
mod tests;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use embark_crds::contract::{ImageInput, ImageUrls};
use reqwest::{
    Client, Response,
    header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue},
    redirect,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

pub use addresses::AddressPolicy;
use addresses::NotAllowed;
use answer::Answer;
pub use gate::{Gate, Turn};
use resolver::Resolver;
pub use resolver::{Lookup, system_lookup};

use crate::{
    error::{Error, ErrorKind, chain},
    input::{Class, Image, ImageUrl, URL_FIELD},
    metrics::{FetchMetrics, Outcome},
    model::{artifact::install_tls_provider, refusal::quote},
};

/// The most redirects of one fetch.
const MAX_REDIRECTS: u32 = 3;
/// How long a connection is kept for the next fetch.
const IDLE: Duration = Duration::from_secs(30);
/// Headers of one answer. With more it is none.
const MAX_HEADERS: usize = 64;

/// Fetches the images of one model.
pub struct Fetcher {
    client: Client,
    urls: ImageUrls,
    size_limit: u64,
    addresses: Arc<AddressPolicy>,
    gate: Gate,
    metrics: FetchMetrics,
}

/// An image's file, and what it holds until it is decoded: its turn, so that no more is fetched than can be prepared, and
/// its share of memory.
#[derive(Debug)]
pub struct Fetched {
    /// The file.
    pub image: Image,
    /// To be kept as long as the file.
    pub held: Held,
}

/// A fetched file's turn and share of memory, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    /// How long the fetch took.
    pub took: Duration,
    _turn: Turn,
    _memory: OwnedSemaphorePermit,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("images cannot be fetched by URL: {0}")]
pub struct FetcherError(String);

// === impl Fetcher ===

impl Fetcher {
    /// What fetches the images of a model; `None`: it takes no URLs.
    ///
    /// # Errors
    /// No client can be made, as where the system has no certificates.
    pub fn of(
        input: &ImageInput,
        (gate, lookup): (Gate, Lookup),
        metrics: FetchMetrics,
    ) -> Result<Option<Self>, FetcherError> {
        let Some(urls) = input.urls.clone() else { return Ok(None) };
        let addresses = Arc::new(AddressPolicy::of(&urls.allowed_cidrs));
        let resolver = Resolver::new(Arc::clone(&addresses), gate.lookups(), lookup);
        let client = client(urls.timeout, resolver)?;
        let size_limit = input.size_limit;
        Ok(Some(Fetcher { client, urls, size_limit, addresses, gate, metrics }))
    }

    /// Waits until a URL's host has its turn. Who does not wait any longer leaves the line.
    pub async fn turn(&self, url: &ImageUrl, class: Class) -> Turn {
        self.gate.turn(url.host(), class).await
    }

    /// The file at a URL, within the time that one fetch may take, redirects included.
    ///
    /// # Errors
    /// [`ErrorKind::UrlNotAllowed`]: it leads to where nothing is fetched from. [`ErrorKind::UrlFailed`] and
    /// [`ErrorKind::ImageUndecodable`]: what is there is no image, for good. [`ErrorKind::UrlUnavailable`]: it may pass.
    pub async fn fetch(&self, url: &ImageUrl, turn: Turn) -> Result<Fetched, Error> {
        let begun = Instant::now();
        let limit = self.urls.timeout;
        let mut outcome = None;
        let fetched = timeout(limit, self.follow(url, turn)).await.unwrap_or_else(|_| {
            outcome = Some(Outcome::TimedOut);
            let words = format!("was not fetched within {limit:?} (spec.input.image.urls.timeout)");
            Err(unavailable(url, words))
        });
        let took = begun.elapsed();
        let outcome = outcome.unwrap_or_else(|| match &fetched {
            Ok(_) => Outcome::Fetched,
            Err(error) => outcome_of(error.kind),
        });
        self.metrics.fetched(outcome, took);
        let (image, turn, memory) = fetched?;
        Ok(Fetched { image, held: Held { took, _turn: turn, _memory: memory } })
    }

    /// Counts a fetch that was given up for want of anybody who wants it.
    pub fn given_up(&self, begun: Instant) {
        self.metrics.fetched(Outcome::GivenUp, begun.elapsed());
    }

    async fn follow(
        &self,
        url: &ImageUrl,
        mut turn: Turn,
    ) -> Result<(Image, Turn, OwnedSemaphorePermit), Error> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            match answer::of(&at, self.ask(&at).await?, self.size_limit)? {
                Answer::Image { response, bytes } => {
                    let memory = self.gate.memory(bytes).await;
                    let file = answer::body((&at, response), self.size_limit, bytes).await?;
                    return Ok((Image::from_file(file.into()), turn, memory));
                }
                Answer::Moved(location) => {
                    self.metrics.redirects.inc();
                    let next = at.redirected(&location, &self.urls)?;
                    if next.host() != at.host() {
                        let class = turn.class();
                        // Not both at a time: two that are redirected to each other would wait for ever.
                        drop(turn);
                        turn = self.turn(&next, class).await;
                    }
                    at = next;
                }
            }
        }
        let allowed = format!("is redirected more than {MAX_REDIRECTS} times");
        Err(Error::of_field(ErrorKind::UrlFailed, URL_FIELD, &url.shown(), allowed))
    }

    async fn ask(&self, url: &ImageUrl) -> Result<Response, Error> {
        // The resolver is not asked for what is an address already.
        if let Some(address) = url.literal() {
            self.addresses.check(address).map_err(|why| not_allowed(url, &why))?;
        }
        let sent = self.client.get(url.as_str()).send().await;
        sent.map_err(|error| failure(url, error))
    }
}

// === free functions ===

fn client(limit: Duration, resolver: Resolver) -> Result<Client, FetcherError> {
    // Without a provider the client's builder panics.
    install_tls_provider();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("image/png,image/jpeg,image/webp,image/gif"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let builder = Client::builder()
        .dns_resolver(Arc::new(resolver))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .http1_only()
        .http1_max_headers(MAX_HEADERS)
        .connect_timeout(limit)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(gate::PER_HOST)
        .default_headers(headers)
        .user_agent(concat!("embark-sidecar/", env!("CARGO_PKG_VERSION")));
    builder.build().map_err(|error| FetcherError(quote(chain(&error))))
}

/// Of a request that was not answered, or not to its end.
fn failure(url: &ImageUrl, error: reqwest::Error) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(why) = error.downcast_ref::<NotAllowed>() {
            return not_allowed(url, why);
        }
        cause = error.source();
    }
    // The error's own words hold the URL, query and all.
    unavailable(url, format!("cannot be fetched: {}", quote(chain(&error.without_url()))))
}

fn not_allowed(url: &ImageUrl, why: &NotAllowed) -> Error {
    Error::of_field(ErrorKind::UrlNotAllowed, URL_FIELD, &url.shown(), why.to_string())
}

fn unavailable(url: &ImageUrl, words: String) -> Error {
    Error::of_field(ErrorKind::UrlUnavailable, URL_FIELD, &url.shown(), words)
}

fn outcome_of(kind: ErrorKind) -> Outcome {
    match kind {
        ErrorKind::UrlNotAllowed => Outcome::NotAllowed,
        ErrorKind::UrlUnavailable => Outcome::Unavailable,
        _ => Outcome::Failed,
    }
}
