//! One call as it is: no failure is asked after.

use std::{error::Error, time::Duration};

use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::Client;
use crate::{
    args::OnMiss,
    pb::client::{self as pb, EmbedRequest, Item, ItemResult, Source, item::Input},
};

/// What every call of a load asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model's name; empty: the only one.
    pub model: String,
    /// The prompt's name; empty: the default one.
    pub prompt: String,
    /// What to do about a miss; `None`: what the model's policy says.
    pub on_miss: Option<OnMiss>,
    /// The calls' deadline.
    pub timeout: Duration,
}

/// What became of each item of a call: the source of its vector, such as `HIT_MEMORY`, or the reason of its failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called(pub Vec<String>);

// === impl Client ===

impl Client {
    /// Embeds a batch, once.
    ///
    /// # Errors
    /// The call failed, for this reason or with this code.
    pub async fn call_once(&mut self, texts: Vec<String>, asked: &Asked) -> Result<Called, String> {
        let item = |text| Item { input: Some(Input::Text(text)) };
        let on_miss = match asked.on_miss {
            None => pb::OnMiss::Unspecified,
            Some(OnMiss::Wait) => pb::OnMiss::Wait,
            Some(OnMiss::Default) => pb::OnMiss::Default,
            Some(OnMiss::Fail) => pb::OnMiss::Fail,
        };
        let mut request = Request::new(EmbedRequest {
            model: asked.model.clone(),
            items: texts.into_iter().map(item).collect(),
            prompt: asked.prompt.clone(),
            on_miss: on_miss.into(),
            ..Default::default()
        });
        request.set_timeout(asked.timeout);
        let answered = self.service.embed(request).await.map_err(|status| {
            let reason = status.get_details_error_info().map(|info| info.reason);
            reason.unwrap_or_else(|| code_name(&status))
        })?;
        Ok(Called(answered.into_inner().results.into_iter().map(word).collect()))
    }
}

// === free functions ===

/// The code of a failure that has no reason, spelled as reasons are.
fn code_name(status: &Status) -> String {
    let mut cause = Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return "DEADLINE_EXCEEDED".to_owned();
        }
        cause = error.source();
    }
    let name = format!("{:?}", status.code());
    let mut spelled = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            spelled.push('_');
        }
        spelled.push(letter.to_ascii_uppercase());
    }
    spelled
}

fn word(result: ItemResult) -> String {
    if let Some(error) = result.error {
        return error.reason;
    }
    let name = Source::try_from(result.source).unwrap_or(Source::Unspecified).as_str_name();
    name.strip_prefix("SOURCE_").unwrap_or(name).to_owned()
}
