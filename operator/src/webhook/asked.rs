//! What a pod asks for, in its annotations.

use std::collections::{BTreeMap, BTreeSet};

use embark_crds::resolve::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::refusal::{Refusal, quoted};
use crate::names::{CPU, MEMORY, MODELS, WAIT};

/// The most models of one pod.
const MOST_MODELS: usize = 16;
/// The most bytes of an annotation that is looked at.
const MOST_BYTES: usize = 1024;
/// The most characters of a model's name.
const NAME_CHARACTERS: usize = 45;
/// The least memory, in bytes: with less the process cannot hold a model at all.
const LEAST_MEMORY: u64 = 64 * 1024 * 1024;
/// The most CPU, in cores.
const MOST_CPU: u64 = 1024;

/// What a pod asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// The models, in the order in which they are named.
    pub(super) models: Vec<String>,
    /// Whether the application waits for them.
    pub(super) waits: bool,
    /// Memory and CPU, where the pod says so.
    pub(super) memory: Option<Quantity>,
    pub(super) cpu: Option<Quantity>,
}

// === impl Asked ===

impl Asked {
    /// Reads the annotations of a pod.
    ///
    /// # Errors
    /// The first that is wrong.
    pub(super) fn read(annotations: Option<&BTreeMap<String, String>>) -> Result<Self, Refusal> {
        let value = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
        let Some(models) = value(MODELS) else {
            return Err(wrong(MODELS, "is missing: name the models, such as \"a,b\""));
        };
        let waits = match value(WAIT) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(wrong(
                    WAIT,
                    &format!("{} is not \"true\" or \"false\"", quoted(other)),
                ));
            }
        };
        let memory = value(MEMORY).map(memory).transpose()?;
        let cpu = value(CPU).map(cpu).transpose()?;
        Ok(Asked { models: models_of(models)?, waits, memory, cpu })
    }

    /// The models as one text.
    pub(super) fn joined(&self) -> String {
        self.models.join(",")
    }
}

// === free functions ===

fn models_of(text: &str) -> Result<Vec<String>, Refusal> {
    if text.trim().is_empty() {
        return Err(wrong(MODELS, "is empty: name the models, such as \"a,b\""));
    }
    if text.len() > MOST_BYTES {
        return Err(wrong(MODELS, &format!("has more than {MOST_BYTES} bytes")));
    }
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if names.len() > MOST_MODELS {
        let sentence = format!("names {} models; at most {MOST_MODELS} fit in a pod", names.len());
        return Err(wrong(MODELS, &sentence));
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        if !is_name(name) {
            let sentence = format!(
                "{} is no name of an EmbeddingModel: lower-case letters, digits and -, beginning with a letter, at most {NAME_CHARACTERS}",
                quoted(name)
            );
            return Err(wrong(MODELS, &sentence));
        }
        if !seen.insert(name) {
            return Err(wrong(MODELS, &format!("names {name:?} more than once")));
        }
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// DNS-1035, as the API server has it for EmbeddingModels.
fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= NAME_CHARACTERS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(is_inner)
}

fn memory(text: &str) -> Result<Quantity, Refusal> {
    match quantity::bytes(text) {
        Some(bytes) if bytes >= LEAST_MEMORY => Ok(Quantity(text.to_owned())),
        _ => {
            let allowed = "is not an amount of memory of 64Mi or more, such as 512Mi or 2Gi";
            Err(wrong(MEMORY, &format!("{} {allowed}", quoted(text))))
        }
    }
}

fn cpu(text: &str) -> Result<Quantity, Refusal> {
    // Rounded up: what is above nothing is at least one here.
    match quantity::bytes(text) {
        Some(1..=MOST_CPU) => Ok(Quantity(text.to_owned())),
        _ => {
            let sentence = format!("{} is not an amount of CPU such as 250m or 2", quoted(text));
            Err(wrong(CPU, &sentence))
        }
    }
}

fn wrong(annotation: &str, sentence: &str) -> Refusal {
    Refusal::malformed(format!("metadata.annotations[{annotation}]: {sentence}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Asked, String> {
        let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Asked::read(Some(&all.collect())).map_err(|refusal| refusal.message)
    }

    #[test]
    fn models_are_named_in_order() {
        let asked = read(&[(MODELS, " b, a ")]).unwrap();
        assert_eq!(asked.models, ["b", "a"]);
        assert!(!asked.waits && asked.memory.is_none() && asked.cpu.is_none());
        let asked = read(&[(MODELS, "a"), (WAIT, "true"), (MEMORY, "1Gi"), (CPU, "250m")]).unwrap();
        assert!(asked.waits);
        assert_eq!((asked.memory.unwrap().0, asked.cpu.unwrap().0), ("1Gi".into(), "250m".into()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_annotation() {
        let (long, many) = ("a".repeat(46), (0..17).map(|n| format!("m{n}")).collect::<Vec<_>>());
        for (pairs, part) in [
            (vec![], "embark.dev/models]: is missing"),
            (vec![(MODELS, " ")], "is empty"),
            (vec![(MODELS, "a,,b")], "\"\" is no name"),
            (vec![(MODELS, "a,A")], "\"A\" is no name"),
            (vec![(MODELS, "1a")], "\"1a\" is no name"),
            (vec![(MODELS, "a-")], "\"a-\" is no name"),
            (vec![(MODELS, &long)], "is no name"),
            (vec![(MODELS, "a,b,a")], "names \"a\" more than once"),
            (vec![(MODELS, &many.join(","))], "names 17 models; at most 16"),
            (vec![(MODELS, &"a,".repeat(1000))], "more than 1024 bytes"),
            (vec![(MODELS, "a"), (WAIT, "yes")], "wait-for-models]: \"yes\" is not"),
            (vec![(MODELS, "a"), (MEMORY, "1Mi")], "memory]: \"1Mi\" is not an amount"),
            (vec![(MODELS, "a"), (MEMORY, "much")], "memory]: \"much\""),
            (vec![(MODELS, "a"), (CPU, "0")], "cpu]: \"0\""),
            (vec![(MODELS, "a"), (CPU, "-1")], "cpu]: \"-1\""),
        ] {
            let message = read(&pairs).unwrap_err();
            assert!(message.contains(part), "{pairs:?}: {message}");
        }
        assert!(Asked::read(None).is_err());
    }
}
