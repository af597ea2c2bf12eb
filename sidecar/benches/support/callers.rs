//! Callers who call again as soon as they are answered.

use std::{sync::Arc, time::Duration};

use embark_sidecar::pb::client::{EmbedRequest, embedding_service_client::EmbeddingServiceClient};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tonic::{Request, transport::Channel};

use crate::{measure::median, server::Server};

/// How many there are.
const CALLERS: usize = 64;
/// What they wait for an answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// The callers, each with a connection of its own.
pub(crate) struct Callers(Vec<EmbeddingServiceClient<Channel>>);

/// What became of their calls.
pub(crate) struct Answers {
    /// The median of a call's seconds.
    pub(crate) p50: f64,
    /// The seconds of all of them.
    pub(crate) seconds: f64,
    /// Calls and items that were not answered.
    pub(crate) failed: f64,
}

// === impl Callers ===

impl Callers {
    pub(crate) async fn of(server: &Server) -> Self {
        let mut clients = Vec::with_capacity(CALLERS);
        for _ in 0..CALLERS {
            clients.push(EmbeddingServiceClient::new(server.channel().await));
        }
        Callers(clients)
    }

    /// Makes these calls; each caller takes the next one when it is free.
    pub(crate) async fn make(&self, calls: Vec<EmbedRequest>) -> Answers {
        let began = Instant::now();
        let calls = Arc::new(Mutex::new(calls.into_iter()));
        let mut callers = JoinSet::new();
        for client in &self.0 {
            callers.spawn(call_on(client.clone(), Arc::clone(&calls)));
        }
        let (mut times, mut failed) = (Vec::new(), 0.0);
        while let Some(ended) = callers.join_next().await {
            let (own, more) = ended.expect("a caller ends");
            times.extend(own);
            failed += more;
        }
        Answers { p50: median(times), seconds: began.elapsed().as_secs_f64(), failed }
    }
}

// === free functions ===

/// Calls until there is nothing left to be called: the seconds of each call, and how many failures there were.
async fn call_on(
    mut client: EmbeddingServiceClient<Channel>,
    calls: Arc<Mutex<std::vec::IntoIter<EmbedRequest>>>,
) -> (Vec<f64>, f64) {
    let (mut times, mut failed) = (Vec::new(), 0.0);
    loop {
        let next = calls.lock().next();
        let Some(call) = next else { return (times, failed) };
        let mut request = Request::new(call);
        request.set_timeout(DEADLINE);
        let began = Instant::now();
        let answer = client.embed(request).await;
        times.push(began.elapsed().as_secs_f64());
        let bad = |reply: &tonic::Response<_>| {
            let reply: &embark_sidecar::pb::client::EmbedResponse = reply.get_ref();
            reply.results.iter().any(|result| result.error.is_some())
        };
        if answer.as_ref().map_or(true, bad) {
            failed += 1.0;
        }
    }
}
