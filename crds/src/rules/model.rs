//! The rules of names, outputs, the cache, batching and pods.

use std::sync::LazyLock;

use super::{Rule, above_zero, at_most, change, get, has, int, size, state, text};
use crate::{resolve::duration, v1alpha1::DURATION_PATTERN};
use regex::Regex;

/// A DNS-1035 label of at most 45 characters, so that the names of a model's children fit.
const NAME: &str = "^[a-z]([-a-z0-9]{0,43}[a-z0-9])?$";

pub(super) fn rules() -> Vec<Rule> {
    root().into_iter().chain(model()).chain(cache()).chain(batching()).chain(pod()).collect()
}

fn root() -> [Rule; 2] {
    static PATTERN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(NAME).expect("a test compiles it"));
    [
        state(
            ("", "metadata.name"),
            format!("self.metadata.name.matches(r'{NAME}')"),
            "must begin with a lower-case letter, hold only lower-case letters, digits and -, not end with -, and have at most 45 characters",
            |object| Some(PATTERN.is_match(text(object, "metadata.name")?)),
        ),
        change(
            ("spec", "cache.epoch"),
            "(has(self.cache) && has(self.cache.epoch) ? self.cache.epoch : 0) >= (has(oldSelf.cache) && has(oldSelf.cache.epoch) ? oldSelf.cache.epoch : 0)",
            "must not fall: entries of a later epoch may be held",
            |new, old| {
                let epoch = |spec| int(spec, "cache.epoch").unwrap_or(0);
                Some(epoch(new) >= epoch(old))
            },
        ),
    ]
}

fn model() -> [Rule; 3] {
    [
        size("spec.model.sizeLimit", "1", "1Ti"),
        state(
            ("spec.model.output", "truncateDimensions"),
            "!has(self.truncateDimensions) || self.truncateDimensions <= self.dimensions",
            "must be at most dimensions",
            |output| Some(int(output, "truncateDimensions")? <= int(output, "dimensions")?),
        ),
        state(
            ("spec.autoscaling", "minReplicas"),
            "self.minReplicas <= self.maxReplicas",
            "must be at most maxReplicas",
            |scaling| Some(int(scaling, "minReplicas")? <= int(scaling, "maxReplicas")?),
        ),
    ]
}

fn cache() -> Vec<Rule> {
    vec![
        above_zero("spec.cache.ttl"),
        state(
            ("spec.cache", "waitBudget"),
            "!has(self.waitBudget) || self.onMiss == 'Wait'",
            "goes with onMiss Wait only",
            |cache| Some(!has(cache, "waitBudget") || text(cache, "onMiss")? == "Wait"),
        ),
        above_zero("spec.cache.waitBudget"),
        at_most("spec.cache.waitBudget", "1h"),
        state(
            ("spec.cache.defaultVector", "values"),
            "self.type != 'Values' || has(self.values)",
            "must be set with type Values",
            |vector| Some(text(vector, "type")? != "Values" || has(vector, "values")),
        ),
        state(
            ("spec.cache.defaultVector", "values"),
            "!has(self.values) || self.type == 'Values'",
            "goes with type Values only",
            |vector| Some(!has(vector, "values") || text(vector, "type")? == "Values"),
        ),
        state(
            ("spec", "cache.defaultVector.values"),
            "!has(self.cache.defaultVector.values) || size(self.cache.defaultVector.values) == self.model.output.dimensions",
            "must hold as many numbers as the model has dimensions",
            |spec| {
                let values = get(spec, "cache.defaultVector.values")?.as_array()?.len();
                Some(i64::try_from(values).ok()? == int(spec, "model.output.dimensions")?)
            },
        ),
        size("spec.cache.memory.sizeLimit", "4Mi", "1Ti"),
        size("spec.cache.disk.sizeLimit", "64Mi", "16Ti"),
    ]
}

fn batching() -> Vec<Rule> {
    vec![
        above_zero("spec.batching.maxDuration"),
        at_most("spec.batching.maxDuration", "60s"),
        state(
            ("spec.batching", "maxDelay"),
            format!(
                "!self.maxDelay.matches(r'{DURATION_PATTERN}') || !self.maxDuration.matches(r'{DURATION_PATTERN}') || duration(self.maxDelay) < duration(self.maxDuration)"
            ),
            "must be below maxDuration",
            |batching| {
                let time = |name| duration::parse(text(batching, name)?);
                Some(time("maxDelay")? < time("maxDuration")?)
            },
        ),
        state(
            ("spec.batching", "queue.maxItems"),
            "self.queue.maxItems >= self.maxItems",
            "must be at least maxItems of a run",
            |batching| Some(int(batching, "queue.maxItems")? >= int(batching, "maxItems")?),
        ),
        state(
            ("spec.batching", "queue.maxTokens"),
            "self.queue.maxTokens >= self.maxTokens",
            "must be at least maxTokens of a run",
            |batching| Some(int(batching, "queue.maxTokens")? >= int(batching, "maxTokens")?),
        ),
    ]
}

fn pod() -> [Rule; 3] {
    let own = |at| {
        state(
            (at, ""),
            "self.all(key, !key.startsWith('embark.dev/'))",
            "must hold no key that begins with embark.dev/: those are the operator's own",
            |map| Some(!map.as_object()?.keys().any(|key| key.starts_with("embark.dev/"))),
        )
    };
    [
        own("spec.pod.labels"),
        own("spec.pod.annotations"),
        state(
            ("spec.endpoint", ""),
            "has(self.tls) || has(self.tokenSecretRef)",
            "tls or tokenSecretRef must be set",
            |endpoint| Some(has(endpoint, "tls") || has(endpoint, "tokenSecretRef")),
        ),
    ]
}
