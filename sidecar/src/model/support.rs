//! What a good contract may ask for that this process cannot give: a queue that holds what a text becomes, certificates and
//! tokens that it was not started with. It is refused by name, never ignored; a default is never refused.

use embark_crds::contract::{Artifact, Batching, Contract, Input, Overlong, TextInput, cost};

use super::{artifact::missing_builtin, refusal::Refusal, tokenizer::MAX_WINDOWS};

/// How the process lets callers in, which a model may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// A certificate.
    pub tls: bool,
    /// Authorities of clients' certificates.
    pub client_ca: bool,
    /// Tokens.
    pub token: bool,
}

// === impl Offered ===

impl Offered {
    /// Whatever a model may ask for: for who is not the server.
    pub const ALL: Self = Offered { tls: true, client_ca: true, token: true };
}

// === free functions ===

/// Every part of the contract that this sidecar does not serve yet, or this process does not offer; empty: it serves all
/// of it.
pub fn unsupported(contract: &Contract, offered: Offered) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |asked: bool, field: &str, sentence: &str| {
        if asked {
            refusals.push(Refusal::new(field, sentence));
        }
    };
    let serving = &contract.serving;
    match &serving.input {
        Input::Text(text) => {
            for (field, sentence) in no_room_for_windows(text, &serving.batching) {
                refuse(true, field, &sentence);
            }
        }
        Input::Image(_) | Input::Tensor(_) | Input::Categorical(_) => {}
    }
    if let Some(asked) = &serving.endpoint {
        let lacks = "is asked for, and the server has none; give it";
        for (asked, offered, field, argument) in [
            (asked.tls, offered.tls, "spec.endpoint.tls", "--tls-cert and --tls-key"),
            (
                asked.client_ca,
                offered.client_ca,
                "spec.endpoint.tls.clientCARef",
                "--tls-client-ca",
            ),
            (asked.token, offered.token, "spec.endpoint.tokenSecretRef", "--token-file"),
        ] {
            refuse(asked && !offered, field, &format!("{lacks} {argument}"));
        }
    }
    refusals
}

/// The artifacts of a contract that are said to be compiled in and are not.
pub fn missing_builtins(contract: &Contract) -> Vec<Refusal> {
    let refusal = |(field, artifact): (&str, &Artifact)| {
        let why = missing_builtin(&artifact.location)?;
        Some(Refusal::new(format!("{field}.uri"), why.to_string()))
    };
    contract.serving.artifacts().filter_map(refusal).collect()
}

/// What of the queue is too small for the windows of one text, half of which is for what runs behind answers: such a text
/// would be refused for ever.
fn no_room_for_windows(text: &TextInput, batching: &Batching) -> Vec<(&'static str, String)> {
    if text.overlong != Overlong::Chunk {
        return Vec::new();
    }
    let windows = MAX_WINDOWS as u64;
    let of_one = cost(1, text.max_tokens.into());
    let bounds = [
        ("spec.batching.queue.maxItems", batching.queue_max_items, windows * 2),
        ("spec.batching.queue.maxTokens", batching.queue_max_tokens, windows * of_one * 2),
    ];
    let too_small = bounds.into_iter().filter(|(_, most, needed)| u64::from(*most) < *needed);
    let refused = |(field, most, needed): (_, u32, u64)| {
        let sentence = format!(
            "{most}; with overlong: Chunk a text has up to {windows} rows of {} tokens, for which at least {needed} \
             is needed",
            text.max_tokens
        );
        (field, sentence)
    };
    too_small.map(refused).collect()
}

#[cfg(test)]
mod tests;
