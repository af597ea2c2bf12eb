//! EmbedStream: many batches on one stream, answered in the order they finish.
//!
//! ```text
//! messages ── one at a time, while there is room ──► calls under way ── as they finish ──► answers
//! ```
//! A caller who sends faster than it is answered is not read from: HTTP/2 holds it up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataMap};

use super::{convert, embeddings::Embeddings, status};
use crate::{
    error::{Error, ErrorKind},
    pb::server::{
        EmbedRequest, EmbedStreamRequest, EmbedStreamResponse, embed_stream_response::Outcome,
    },
};

/// Batches of one stream that are under way. No more are read until one is answered.
const UNDER_WAY: usize = 16;
/// Answers that wait to be sent. When more wait, what is under way waits with them.
const ANSWERS: usize = 4;
/// How long a batch may take on a stream whose client says no deadline.
const BATCH_LIMIT: Duration = Duration::from_secs(30);

/// What the client is sent.
pub(super) type Answers = ReceiverStream<Result<EmbedStreamResponse, Status>>;

/// What happens next on a stream.
enum Event {
    /// Its client has gone.
    Gone,
    /// A batch is done.
    Answered(Done),
    /// The server stops.
    Stopped,
    /// A message, the end of them, or a broken stream.
    Message(Result<Option<EmbedStreamRequest>, Status>),
}

/// A batch that is done, or whose task panicked.
type Done = Result<(u64, Result<Outcome, Error>), JoinError>;

/// One stream.
struct Exchange {
    embeddings: Embeddings,
    headers: Arc<MetadataMap>,
    messages: Streaming<EmbedStreamRequest>,
    answers: mpsc::Sender<Result<EmbedStreamResponse, Status>>,
    calls: JoinSet<(u64, Result<Outcome, Error>)>,
    /// The batches under way.
    ids: HashSet<u64>,
    deadline: Option<Instant>,
    stopped: watch::Receiver<bool>,
}

/// Answers the messages of a stream, until its client ends it or goes, or the server stops.
pub(super) fn answer(
    embeddings: Embeddings,
    request: Request<Streaming<EmbedStreamRequest>>,
    deadline: Option<Instant>,
) -> Answers {
    let (answers, receiver) = mpsc::channel(ANSWERS);
    let stopped = embeddings.stopped.clone();
    let (headers, _, messages) = request.into_parts();
    let headers = Arc::new(headers);
    let (calls, ids) = (JoinSet::new(), HashSet::new());
    let exchange =
        Exchange { embeddings, headers, messages, answers, calls, ids, deadline, stopped };
    // It ends with its client: then nothing can be sent to it any more. Calls under way end with it.
    tokio::spawn(exchange.run());
    ReceiverStream::new(receiver)
}

// === impl Exchange ===

impl Exchange {
    async fn run(mut self) {
        let ended = self.read().await;
        loop {
            let answered = tokio::select! {
                biased;
                // What is under way for a client who has gone ends with this task.
                () = self.answers.closed() => return,
                answered = self.calls.join_next() => answered,
            };
            let Some(answered) = answered else { break };
            if !self.send(answered).await {
                return;
            }
        }
        if let Err(status) = ended {
            // The client may have gone.
            let _ = self.answers.send(Err(status)).await;
        }
    }

    /// Reads messages and sends answers, until there are no more messages to be read.
    async fn read(&mut self) -> Result<(), Status> {
        loop {
            match self.next().await {
                Event::Gone => return Ok(()),
                Event::Answered(answered) => {
                    if !self.send(answered).await {
                        return Ok(());
                    }
                }
                Event::Stopped => return Err(going_away()),
                Event::Message(message) => match message? {
                    Some(message) => self.begin(message),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn next(&mut self) -> Event {
        if *self.stopped.borrow() {
            return Event::Stopped;
        }
        let has_room = self.calls.len() < UNDER_WAY;
        tokio::select! {
            biased;
            () = self.answers.closed() => Event::Gone,
            Some(answered) = self.calls.join_next() => Event::Answered(answered),
            // An error means that the server is gone.
            _ = self.stopped.changed() => Event::Stopped,
            message = self.messages.message(), if has_room => Event::Message(message),
        }
    }

    fn begin(&mut self, EmbedStreamRequest { id, request }: EmbedStreamRequest) {
        if !self.ids.insert(id) {
            let allowed = "is the id of a batch that is not answered yet; each has its own";
            let error = Error::of_field(ErrorKind::Malformed, "id", &id.to_string(), allowed);
            self.calls.spawn(std::future::ready((id, Err(error))));
            return;
        }
        let (embeddings, headers) = (self.embeddings.clone(), Arc::clone(&self.headers));
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.unwrap_or(BATCH_LIMIT).min(BATCH_LIMIT);
        self.calls
            .spawn(async move { (id, batch(&embeddings, request, (timeout, &headers)).await) });
    }

    /// Whether there is still somebody to send to.
    async fn send(&mut self, answered: Done) -> bool {
        // A panic of a call is in the log; its client learns that the stream is lost.
        let Ok((id, outcome)) = answered else {
            let lost = Error::new(ErrorKind::WorkerLost, "the computation of a batch was lost");
            let _ = self.answers.send(Err(status::of(&lost))).await;
            return false;
        };
        let is_repeated = matches!(&outcome, Err(error) if error.field == "id");
        if !is_repeated {
            self.ids.remove(&id);
        }
        let outcome = outcome.unwrap_or_else(|error| Outcome::Error(convert::item_error(&error)));
        let answer = EmbedStreamResponse { id, outcome: Some(outcome) };
        self.answers.send(Ok(answer)).await.is_ok()
    }
}

// === free functions ===

async fn batch(
    embeddings: &Embeddings,
    request: Option<EmbedRequest>,
    (timeout, headers): (Duration, &MetadataMap),
) -> Result<Outcome, Error> {
    let request = request.ok_or_else(|| {
        let sentence = "request: is missing; a message has an id and a request";
        Error::new(ErrorKind::Malformed, sentence).about("request", "")
    })?;
    let of = ("EmbedStream", headers);
    embeddings.embed_within(request, timeout, of).await.map(Outcome::Response)
}

fn going_away() -> Status {
    status::of(&Error::new(ErrorKind::Draining, "the server is shutting down"))
}
