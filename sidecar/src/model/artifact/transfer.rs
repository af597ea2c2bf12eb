//! The one way that bytes come over a network, whatever the source: hashed as they come, bounded in size, idle time and
//! tries, gone on with where they broke off when the source can.

use std::time::Duration;

use bytes::Bytes;
use embark_crds::contract::Sha256;
use futures_util::{StreamExt as _, stream::BoxStream};
use sha2::Digest as _;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::{
    FetchCause, Progress, Request,
    body::{Failure, FetchSettings, Opened},
    source::Source,
    temporary::Temporary,
};

/// A file that was received whole.
pub(super) struct Received {
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// Their digest.
    pub(super) digest: Sha256,
    /// Its copy on disk.
    pub(super) temporary: Option<Temporary>,
    /// Whether it came in one piece: pieces may be of two files.
    pub(super) in_one_piece: bool,
}

/// What of a file came so far.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    hasher: sha2::Sha256,
    temporary: Option<Temporary>,
    validator: Option<String>,
    resumed: bool,
}

/// What the log says of a transfer.
struct Told {
    address: String,
    total: Option<u64>,
    last: Instant,
}

/// How a body gets on.
struct Pace {
    idle_timeout: Duration,
    until: Instant,
    came: usize,
}

/// Why a try ended.
enum Stop {
    Failed(Failure),
    TooLarge,
}

/// Bytes between two reports of progress, and those that a file gets on by.
const PROGRESS_STEP_BYTES: u64 = 1024 * 1024;
/// What must come within the idle time: a source that drips is as good as one that stands still.
const LEAST_STEP_BYTES: usize = 16 * 1024;
/// How often the log says how far a transfer is.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// The most memory that is set aside on the word of a length alone.
const TRUSTED_LENGTH_BYTES: u64 = 64 * 1024 * 1024;

// === impl Partial ===

impl Partial {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn forget(&mut self) {
        *self = Partial::default();
    }

    fn finish(self) -> Received {
        Received {
            bytes: self.bytes.into(),
            digest: Sha256(self.hasher.finalize().into()),
            temporary: self.temporary,
            in_one_piece: !self.resumed,
        }
    }

    /// Takes a chunk in; a disk that is full costs the copy, not the fetch.
    async fn take(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
        self.bytes.extend_from_slice(chunk);
        if let Some(temporary) = &mut self.temporary
            && let Err(error) = temporary.write(chunk).await
        {
            warn!(file = %temporary.path().display(), %error, "a fetched model cannot be kept");
            self.temporary = None;
        }
    }
}

// === impl Told ===

impl Told {
    fn begin(address: String, (from, total): (u64, Option<u64>)) -> Self {
        info!(address, from, total, "fetching a file");
        Told { address, total, last: Instant::now() }
    }

    fn on(&mut self, bytes: u64) {
        if self.last.elapsed() >= TOLD_EVERY {
            info!(address = self.address, bytes, total = self.total, "fetching a file");
            self.last = Instant::now();
        }
    }
}

// === impl Pace ===

impl Pace {
    fn of(idle_timeout: Duration) -> Self {
        Pace { idle_timeout, until: Instant::now() + idle_timeout, came: 0 }
    }

    async fn next(
        &mut self,
        body: &mut BoxStream<'static, Result<Bytes, Failure>>,
    ) -> Result<Option<Bytes>, Stop> {
        let Ok(chunk) = timeout_at(self.until, body.next()).await else {
            return Err(Stop::Failed(Failure::idle()));
        };
        let chunk = chunk.transpose().map_err(Stop::Failed)?;
        self.came += chunk.as_ref().map_or(0, Bytes::len);
        if self.came >= LEAST_STEP_BYTES {
            *self = Pace::of(self.idle_timeout);
        }
        Ok(chunk)
    }
}

// === free functions ===

/// Fetches a file. Its bytes are written to what `temporary` makes as well, while that goes well.
///
/// # Errors
/// It is too large, or the source did not give it, in as many tries as there may be.
pub(super) async fn receive<F>(
    source: &Source,
    settings: &FetchSettings,
    request: &Request<'_>,
    temporary: impl Fn() -> F,
) -> Result<Received, FetchCause>
where
    F: Future<Output = Option<Temporary>>,
{
    let (mut partial, mut backoff) = (Partial::default(), settings.backoff);
    let (mut tried, mut furthest) = (0, 0);
    loop {
        if partial.bytes.is_empty() {
            partial.forget();
            partial.temporary = temporary().await;
        }
        let failure = match attempt(source, settings, request, &mut partial).await {
            Ok(()) => return Ok(partial.finish()),
            Err(Stop::TooLarge) => return Err(FetchCause::TooLarge { limit: request.size_limit }),
            Err(Stop::Failed(failure)) => failure,
        };
        // A source that breaks off again and again but gives a piece each time is read to its end.
        if partial.len() >= furthest + PROGRESS_STEP_BYTES {
            (furthest, tried, backoff) = (partial.len(), 0, settings.backoff);
        }
        tried += 1;
        if failure.start_over {
            partial.forget();
        }
        let (address, problem) = (source.address(), failure.problem);
        if !failure.transient || tried >= settings.tries.max(1) {
            let times = if tried == 1 { String::new() } else { format!(" ({tried} tries)") };
            let (problem, transient) = (format!("{problem}{times}"), failure.transient);
            return Err(FetchCause::Source { address, problem, transient });
        }
        let bytes = partial.len();
        info!(address, problem, tried, bytes, ?backoff, "a fetch failed and is tried again");
        pause(backoff).await;
        backoff = (backoff * 2).min(settings.longest_backoff);
    }
}

/// One try, from where the last one broke off.
async fn attempt(
    source: &Source,
    settings: &FetchSettings,
    request: &Request<'_>,
    partial: &mut Partial,
) -> Result<(), Stop> {
    let opening = source.open(partial.len(), partial.validator.as_deref());
    let opened = opening.await.map_err(Stop::Failed)?;
    let Opened { from, total, validator, mut body } = opened;
    if total.is_some_and(|total| total > request.size_limit) {
        return Err(Stop::TooLarge);
    }
    if from == partial.len() {
        partial.resumed |= from > 0;
    } else {
        // Another file, or a source that gives no pieces: this is its beginning.
        let temporary = partial.temporary.take();
        partial.forget();
        partial.temporary = emptied(temporary).await;
    }
    partial.validator = validator;
    if partial.bytes.is_empty() {
        let expected = total.unwrap_or(0).min(TRUSTED_LENGTH_BYTES);
        partial.bytes.reserve(usize::try_from(expected).unwrap_or(0));
    }
    let mut reported = partial.len();
    (request.progress)(Progress::Fetching { bytes: reported, total });
    let mut told = Told::begin(source.address(), (reported, total));
    let mut pace = Pace::of(settings.idle_timeout);
    while let Some(chunk) = pace.next(&mut body).await? {
        let length = partial.len() + chunk.len() as u64;
        if length > request.size_limit {
            return Err(Stop::TooLarge);
        }
        partial.take(&chunk).await;
        if length - reported >= PROGRESS_STEP_BYTES {
            reported = length;
            (request.progress)(Progress::Fetching { bytes: length, total });
            told.on(length);
        }
    }
    if total.is_some_and(|total| total != partial.len()) {
        return Err(Stop::Failed(Failure::transient("broke off")));
    }
    (request.progress)(Progress::Fetching { bytes: partial.len(), total });
    Ok(())
}

/// The same file without a byte in it.
async fn emptied(temporary: Option<Temporary>) -> Option<Temporary> {
    let mut temporary = temporary?;
    match temporary.empty().await {
        Ok(()) => Some(temporary),
        Err(error) => {
            warn!(file = %temporary.path().display(), %error, "a fetched model cannot be kept");
            None
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "time itself is what a back-off waits for")]
async fn pause(backoff: Duration) {
    tokio::time::sleep(backoff).await;
}
