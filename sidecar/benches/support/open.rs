//! Calls that come at random times, whether or not earlier ones are answered.

use std::time::Duration;

use embark_sidecar::pb::client::{EmbedRequest, embedding_service_client::EmbeddingServiceClient};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::{Request, transport::Channel};

use crate::{random::Random, server::Server};

/// Who calls, how often, and how long it waits for an answer.
pub(crate) struct Load {
    client: EmbeddingServiceClient<Channel>,
    rate: f64,
    patience: Duration,
}

/// What became of calls.
pub(crate) struct Answers {
    pub(crate) sent: u64,
    /// The seconds of those that were answered.
    pub(crate) seconds: Vec<f64>,
    /// Calls that were not.
    pub(crate) failed: f64,
}

// === impl Load ===

impl Load {
    /// So many calls a second, on a connection of their own.
    pub(crate) async fn of(server: &Server, rate: f64, patience: Duration) -> Self {
        let client = EmbeddingServiceClient::new(server.channel().await);
        Load { client, rate, patience }
    }

    /// Sends calls for so long, and waits for their answers.
    pub(crate) async fn send(
        &self,
        (seed, time): (u64, Duration),
        call: impl Fn(u64) -> EmbedRequest,
    ) -> Answers {
        let (mut random, mut at, mut sent) = (Random::new(seed), 0.0, 0);
        let (mut calls, began) = (JoinSet::new(), Instant::now());
        loop {
            at -= (1.0 - random.unit()).ln() / self.rate;
            if at > time.as_secs_f64() {
                break;
            }
            // Timers tick in milliseconds: what is due meanwhile comes together.
            sleep_until(began + Duration::from_secs_f64(at)).await;
            let mut client = self.client.clone();
            let mut request = Request::new(call(sent));
            request.set_timeout(self.patience);
            calls.spawn(async move {
                let began = Instant::now();
                let answer = client.embed(request).await;
                answer.is_ok().then(|| began.elapsed().as_secs_f64())
            });
            sent += 1;
        }
        let answers = calls.join_all().await;
        let seconds: Vec<f64> = answers.into_iter().flatten().collect();
        let failed = (sent - seconds.len() as u64) as f64;
        Answers { sent, seconds, failed }
    }
}

// === free functions ===

/// The value that this share of them does not pass.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, reason = "it is an index")]
    #[expect(clippy::cast_sign_loss, reason = "it is an index")]
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
