//! A client of the service, for the command line: messages in plain types, failures as sentences.

pub mod before;
mod connect;
mod forget;
mod images;
mod once;

use std::time::Duration;

pub use connect::PodsName;
use connect::{Door, tls_trouble};
pub use forget::{Forgotten, Scope};
pub use once::{Asked, Called};

use embark_crds::contract::GRPC_PORT;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::pb::client::{
    EmbedRequest, EmbedResponse, GetModelRequest, InputKind, Item, ItemResult, OnMiss, Source,
    embedding_service_client::EmbeddingServiceClient, item::Input,
};

/// Bytes of the largest reply that is read.
const REPLY_BYTES: usize = 64 * 1024 * 1024;

/// How long a server may take to accept a connection, and to describe a model. The latter needs no computation.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Reasons that are about a single text. A call fails with one when all of its texts do.
const TEXT_REASONS: [&str; 6] =
    ["ITEM_KIND", "TEXT_EMPTY", "TEXT_TOO_LONG", "TEXT_NOT_UTF8", "NOT_FINITE", "INFERENCE"];

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Door,
    service: EmbeddingServiceClient<Door>,
    /// Whether it is encrypted.
    is_tls: bool,
    /// HOST:PORT or a path, for sentences.
    address: String,
}

/// What every batch of a run asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model's name; empty: the only one.
    pub model: String,
    /// The prompt's name; empty: the default one.
    pub prompt: String,
    /// How many values of each vector; `None`: the model's.
    pub dimensions: Option<u32>,
    /// Whether vectors are waited for, whatever the model's policy does about a miss.
    pub waits: bool,
}

/// What a server says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The most items of a batch; at least 1.
    pub max_items: usize,
    /// The length of its full vectors.
    pub dimensions: u32,
    /// Whether its vectors have length 1.
    pub normalized: bool,
    /// Whether it takes texts.
    pub takes_texts: bool,
}

/// What became of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The vector; empty when it failed.
    pub vector: Vec<f32>,
    /// Where the vector came from, such as `HIT_MEMORY`.
    pub source: &'static str,
    /// Milliseconds since its computation began.
    pub age_ms: u64,
    /// Tokens that the model read.
    pub tokens: u32,
    /// Whether the text was cut.
    pub truncated: bool,
    /// Why there is no vector.
    pub error: Option<String>,
}

/// The server could not be reached, or refused; a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CallFailed(String);

// === impl Client ===

impl Client {
    /// What a model is; an empty name means the only one.
    ///
    /// # Errors
    /// The server does not know it.
    pub async fn describe(&mut self, model: &str) -> Result<Described, CallFailed> {
        let request = GetModelRequest { model: model.to_owned() };
        let answer = timeout(ANSWER_LIMIT, self.service.get_model(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("")));
        let model = answer.map_err(|status| self.greeted(&status))?.into_inner().model;
        let model = model.ok_or_else(|| CallFailed("the server describes no model".to_owned()))?;
        Ok(Described {
            max_items: model.limits.map_or(1, |limits| limits.max_items).max(1) as usize,
            dimensions: model.dimensions,
            normalized: model.normalized,
            takes_texts: model.input_kind() == InputKind::Text,
        })
    }

    /// Embeds a batch; a text that fails does so alone.
    ///
    /// # Errors
    /// The call failed for another reason than its texts.
    pub async fn embed(
        &mut self,
        texts: Vec<String>,
        options: &Options,
    ) -> Result<Vec<Embedded>, CallFailed> {
        match self.call(texts.clone(), options).await {
            Ok(embedded) => Ok(embedded),
            Err(status) if is_of_texts(&status) => self.embed_one_by_one(texts, options).await,
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// Asks for each text what is wrong with it: a failing call says it of the first alone.
    async fn embed_one_by_one(
        &mut self,
        texts: Vec<String>,
        options: &Options,
    ) -> Result<Vec<Embedded>, CallFailed> {
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            match self.call(vec![text], options).await {
                Ok(embedded) => all.extend(embedded),
                Err(status) if is_of_texts(&status) => all.push(Embedded::failed(&status)),
                Err(status) => return Err(self.refused(&status)),
            }
        }
        Ok(all)
    }

    /// What a failure of the first call means: one that no embark server would give comes from something else.
    fn greeted(&self, status: &Status) -> CallFailed {
        let known = [Code::Unavailable, Code::ResourceExhausted, Code::Unauthenticated];
        if has_reason(status) || (is_of_server(status) && known.contains(&status.code())) {
            return sentence(status);
        }
        if self.is_tls && !is_of_server(status) {
            // By TLS 1.3 a client learns only now that its certificate was missed, if the server's word of it came through.
            let why = tls_trouble(status)
                .unwrap_or_else(|| "it may want a certificate (--tls-cert), or another".to_owned());
            let address = &self.address;
            return CallFailed(format!("the server at {address} ended the connection: {why}"));
        }
        CallFailed(format!(
            "what answers at {} is no embark server; --address is that of its gRPC, by default port {GRPC_PORT}, not of its admin port; a server with TLS wants https://",
            self.address
        ))
    }

    /// What a failure of a later call means.
    fn refused(&self, status: &Status) -> CallFailed {
        match is_of_server(status) {
            true => sentence(status),
            false => CallFailed(format!("the server at {} went away", self.address)),
        }
    }

    async fn call(
        &mut self,
        texts: Vec<String>,
        options: &Options,
    ) -> Result<Vec<Embedded>, Status> {
        let item = |text| Item { input: Some(Input::Text(text)) };
        self.send(texts.into_iter().map(item).collect(), options).await
    }

    async fn send(&mut self, items: Vec<Item>, options: &Options) -> Result<Vec<Embedded>, Status> {
        let request = EmbedRequest {
            model: options.model.clone(),
            items,
            prompt: options.prompt.clone(),
            dimensions: options.dimensions.unwrap_or_default(),
            on_miss: if options.waits { OnMiss::Wait.into() } else { 0 },
            ..Default::default()
        };
        let response: EmbedResponse = self.service.embed(request).await?.into_inner();
        Ok(response.results.into_iter().enumerate().map(embedded).collect())
    }
}

// === impl Embedded ===

impl Embedded {
    fn failed(status: &Status) -> Self {
        Embedded {
            vector: Vec::new(),
            source: "",
            age_ms: 0,
            tokens: 0,
            truncated: false,
            error: Some(of_text(0, &sentence(status).0)),
        }
    }
}

// === free functions ===

/// The sentence of a text that was the `index`th of its call, which the user knows nothing of.
fn of_text(index: usize, sentence: &str) -> String {
    sentence.replacen(&format!("items[{index}].text: "), "", 1)
}

fn embedded((index, result): (usize, ItemResult)) -> Embedded {
    let source = Source::try_from(result.source).unwrap_or(Source::Unspecified).as_str_name();
    Embedded {
        source: source.strip_prefix("SOURCE_").unwrap_or(source),
        vector: result.vector,
        age_ms: result.age_ms,
        tokens: result.tokens,
        truncated: result.truncated,
        error: result
            .error
            .map(|error| of_text(index, &format!("{}: {}", error.reason, error.message))),
    }
}

fn is_of_texts(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| TEXT_REASONS.contains(&info.reason.as_str()))
}

fn has_reason(status: &Status) -> bool {
    status.get_details_error_info().is_some()
}

/// Whether a server answered with it, rather than the connection breaking.
fn is_of_server(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
}

fn sentence(status: &Status) -> CallFailed {
    let reason = status.get_details_error_info().map(|info| info.reason);
    let name = reason.unwrap_or_else(|| format!("{:?}", status.code()));
    CallFailed(format!("{name}: {}", status.message()))
}
