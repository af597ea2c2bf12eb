//! What a contract may ask for that is not built yet. It is refused by name, never ignored; a default is never refused.

use std::time::Duration;

use embark_crds::contract::{Artifact, Contract, Input, Overlong, ServingConfig, TensorDtype};

use super::{artifact::missing_builtin, refusal::Refusal};

/// What is said of an input that is not served yet.
pub(super) const OTHER_INPUT: &str = "is not supported yet; supported: text, tensor";

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
            let overlong = match text.overlong {
                Overlong::Truncate => "",
                Overlong::Reject => "Reject is not supported yet; supported: Truncate",
                Overlong::Chunk => "Chunk is not supported yet; supported: Truncate",
            };
            refuse(!overlong.is_empty(), "spec.input.text.overlong", overlong);
        }
        Input::Tensor(tensor) => {
            let other = tensor.dtype != TensorDtype::Float32;
            let sentence = format!("{:?} is not supported yet; supported: Float32", tensor.dtype);
            refuse(other, "spec.input.tensor.dtype", &sentence);
        }
        Input::Image(_) => refuse(true, "spec.input.image", OTHER_INPUT),
        Input::Categorical(_) => refuse(true, "spec.input.categorical", OTHER_INPUT),
    }
    refuse(!serving.self_test.is_empty(), "spec.selfTest", "is not supported yet; leave it out");
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

    let policy = &contract.policy;
    let only_zero = "is not supported yet; supported: 0s";
    refuse(policy.negative_ttl > Duration::ZERO, "spec.cache.negativeTTL", only_zero);
    refusals
}

/// The artifacts of a contract that are said to be compiled in and are not.
pub fn missing_builtins(contract: &Contract) -> Vec<Refusal> {
    let refusal = |(field, artifact): (&str, &Artifact)| {
        let why = missing_builtin(&artifact.location)?;
        Some(Refusal::new(format!("{field}.uri"), why.to_string()))
    };
    artifacts(&contract.serving).filter_map(refusal).collect()
}

/// The artifacts and their fields. What a model of another input reads is not looked at: its input is refused.
fn artifacts(serving: &ServingConfig) -> impl Iterator<Item = (&'static str, &Artifact)> {
    let tokenizer = match &serving.input {
        Input::Text(text) => Some(("spec.input.text.tokenizer", &text.tokenizer)),
        _ => None,
    };
    [("spec.model.source", &serving.model)].into_iter().chain(tokenizer)
}

#[cfg(test)]
mod tests;
