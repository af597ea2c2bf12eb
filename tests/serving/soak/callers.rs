//! Who calls in a soak: each call is answered, and rightly, or its caller has gone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use embark_sidecar::pb::client::{
    EmbedStreamRequest, EmbedStreamResponse, embed_stream_response::Outcome,
    embedding_service_client::EmbeddingServiceClient,
};
use embark_tests::{
    Random, Sidecar,
    sidecar::{LIMIT, pass},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{calls::Call, reference::Reference};

/// Calls that are made on one connection.
const CALLS: u64 = 100;
/// The longest that a caller thinks, in milliseconds.
const THINKS: u64 = 60;
/// Batches that are under way on a stream.
const WINDOW: usize = 8;

/// Who is called, and for how long.
#[derive(Clone)]
pub(super) struct Address {
    grpc: String,
    pub(super) reference: Arc<Reference>,
    stop: watch::Receiver<bool>,
    /// Whether the server is going away, and may say so.
    ending: watch::Receiver<bool>,
    answered: Arc<AtomicU64>,
    /// When the last invalidation of everything was sent that was answered.
    pub(super) forgotten: Arc<Mutex<Option<Instant>>>,
    failed: watch::Sender<bool>,
}

/// What callers met, and how often.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(BTreeMap<String, u64>);

/// Says that its task panicked, when it did.
struct Alarm(watch::Sender<bool>);

type Client = EmbeddingServiceClient<Channel>;

// === impl Address ===

impl Address {
    pub(super) async fn new(
        sidecar: &Sidecar,
        reference: Arc<Reference>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Address {
            grpc: format!("http://{}", sidecar.grpc()),
            reference,
            stop,
            ending: watch::channel(false).1,
            answered: Arc::default(),
            forgotten: Arc::default(),
            failed: watch::Sender::new(false),
        }
    }

    /// The same for callers who go on until the server refuses them, which it may once the sender says so.
    pub(super) fn until_refused(self) -> (Self, watch::Sender<bool>) {
        let (sender, ending) = watch::channel(false);
        let (stop, answered) = (watch::channel(false).1, Arc::default());
        (Address { stop, ending, answered, ..self }, sender)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Resolves when a caller has panicked.
    pub(super) async fn failed(&self) {
        let _ = self.failed.subscribe().wait_for(|failed| *failed).await;
    }

    fn goes_on(&self) -> bool {
        !*self.stop.borrow()
    }

    fn call(&self, random: &mut Random) -> Call {
        let forgotten = *self.forgotten.lock();
        Call::new(random, &self.reference, forgotten)
    }

    /// A client on a connection of its own; `None`: the server listens no more, and may have ceased to.
    async fn connect(&self) -> Option<Client> {
        match Client::connect(self.grpc.clone()).await {
            Ok(client) => Some(client.max_decoding_message_size(64 << 20)),
            Err(error) => {
                assert!(*self.ending.borrow(), "the server does not answer: {error}");
                None
            }
        }
    }

    /// Whether a failure says that the server is going away, when it is.
    fn is_the_end(&self, status: &Status) -> bool {
        // The client's word for a call that it had not sent when the connection was closed.
        let never_left =
            status.code() == Code::Cancelled && status.to_string().contains("connection closed");
        *self.ending.borrow() && (status.code() == Code::Unavailable || never_left)
    }
}

// === impl Tally ===

impl Tally {
    pub(super) fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: Tally) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

// === impl Alarm ===

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_replace(true);
        }
    }
}

// === free functions ===

/// Calls Embed until it is told to stop; some of its calls it does not wait for.
pub(super) async fn call(address: Address, mut random: Random) -> Tally {
    let (_alarm, mut tally) = (Alarm(address.failed.clone()), Tally::default());
    while address.goes_on() {
        let Some(mut client) = address.connect().await else { break };
        for _ in 0..CALLS {
            if !address.goes_on() {
                break;
            }
            if call_once(&address, &mut client, (&mut random, &mut tally)).await.is_err() {
                tally.count("refused at the end");
                return tally;
            }
            pass(Duration::from_millis(random.below(THINKS))).await;
        }
    }
    tally
}

/// One call. An error: the server goes away.
async fn call_once(
    address: &Address,
    client: &mut Client,
    (random, tally): (&mut Random, &mut Tally),
) -> Result<(), ()> {
    let call = address.call(random);
    let stays = if random.below(8) == 0 { Duration::from_millis(random.below(40)) } else { LIMIT };
    let Ok(answer) = timeout(stays, client.embed(call.to_send())).await else {
        assert!(stays < LIMIT, "unanswered: {call:?}");
        tally.count("went");
        return Ok(());
    };
    match answer {
        Ok(reply) => call.check(reply.get_ref(), &address.reference, tally),
        Err(status) if address.is_the_end(&status) => return Err(()),
        Err(status) => call.check_refusal(&status, tally),
    }
    address.answered.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Opens streams until it is told to stop; some of them it leaves.
pub(super) async fn stream(address: Address, mut random: Random) -> Tally {
    let (_alarm, mut tally) = (Alarm(address.failed.clone()), Tally::default());
    while address.goes_on() {
        let Some(mut client) = address.connect().await else { break };
        let (sender, messages) = mpsc::channel(WINDOW);
        let answers = match client.embed_stream(ReceiverStream::new(messages)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                assert!(address.is_the_end(&status), "no stream: {status}");
                break;
            }
        };
        tally.count("streams");
        let exchanged = exchange(&address, (sender, answers), (&mut random, &mut tally)).await;
        if exchanged.is_err() {
            tally.count("streams ended");
            break;
        }
        pass(Duration::from_millis(random.below(THINKS))).await;
    }
    tally
}

/// Some batches on one stream. An error: the server goes away.
async fn exchange(
    address: &Address,
    (sender, mut answers): (mpsc::Sender<EmbedStreamRequest>, Streaming<EmbedStreamResponse>),
    (random, tally): (&mut Random, &mut Tally),
) -> Result<(), ()> {
    let (count, leaves) = (1 + random.below(40), random.below(4) == 0);
    let mut under_way = BTreeMap::new();
    for id in 0..count {
        while under_way.len() >= WINDOW {
            take(address, (&mut answers, &mut under_way), tally).await?;
        }
        let call = address.call(random);
        let message = EmbedStreamRequest { id, request: Some(call.request.clone()) };
        // Nobody takes it: the stream's end says why, below.
        if sender.send(message).await.is_err() {
            break;
        }
        under_way.insert(id, call);
        pass(Duration::from_millis(random.below(THINKS))).await;
    }
    if leaves {
        tally.count("streams left");
        return Ok(());
    }
    drop(sender);
    while !under_way.is_empty() {
        take(address, (&mut answers, &mut under_way), tally).await?;
    }
    match timeout(LIMIT, answers.message()).await.expect("the stream ends") {
        Ok(more) => assert!(more.is_none(), "an answer to nothing: {more:?}"),
        Err(status) => assert!(address.is_the_end(&status), "not its end: {status}"),
    }
    Ok(())
}

/// Takes one answer. An error: the server goes away.
async fn take(
    address: &Address,
    (answers, under_way): (&mut Streaming<EmbedStreamResponse>, &mut BTreeMap<u64, Call>),
    tally: &mut Tally,
) -> Result<(), ()> {
    let answer = match timeout(LIMIT, answers.message()).await.expect("unanswered on a stream") {
        Ok(answer) => answer.unwrap_or_else(|| panic!("unanswered: {under_way:?}")),
        Err(status) => {
            assert!(address.is_the_end(&status), "the stream broke: {status}");
            return Err(());
        }
    };
    let call = under_way.remove(&answer.id).expect("an answer to a batch that waits");
    match answer.outcome.expect("an outcome") {
        Outcome::Response(reply) => call.check(&reply, &address.reference, tally),
        Outcome::Error(error) => call.check_error_of_all(&error, tally),
    }
    address.answered.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
