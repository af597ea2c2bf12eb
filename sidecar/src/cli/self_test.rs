//! `self-test`: loads models as `serve` would, without a port, makes the checks of their specs, and prints what they
//! measured and checks that are ready to be pasted. Everything that it prints is YAML: what is no check is a comment.

use std::{
    io::{self, Write as _},
    num::NonZeroUsize,
    sync::Arc,
};

use embark_crds::contract::{CacheMode, CacheStorage, Input, SelfTestInput, files};
use tokio::task::spawn_blocking;

use super::Failure;
use crate::{
    args,
    batch::{Batcher, BatcherConfig},
    cache::{Cache, CacheConfig},
    clock::SystemClock,
    config::{self, ModelConfig},
    embedding::Vector,
    metrics::Metrics,
    model::{
        artifact::{self, ArtifactStore},
        load::{self, LoadedModel},
        support::Offered,
    },
    self_test,
    served::{Runtime, ServedModel},
};

/// The most checks of a spec, and the most characters of a text of one.
const MOST_CHECKS: usize = 8;
const MOST_CHARACTERS: usize = 4096;
/// Digits that a vector's largest value keeps: the cosine to the whole one is 1 to six digits.
const DIGITS: i32 = 5;
/// What is asked of vectors that are computed elsewhere; and of those of models that quantise as they run.
const MIN_COSINE: &str = "0.999";
const MIN_COSINE_QUANTISED: &str = "0.99";

/// Runs the command.
///
/// # Errors
/// A manifest is wrong, a model cannot be loaded, or a check does not pass; what else there is to print has been printed.
pub async fn run(arguments: args::SelfTest) -> Result<(), Failure> {
    artifact::install_tls_provider();
    check_texts(&arguments.text)?;
    let models = config::of_manifests(&arguments.file, Offered::ALL)
        .map_err(|errors| Failure::Usage(errors.join("\n")))?;
    let artifacts = ArtifactStore::new(&arguments.data_dir.join(files::ARTIFACTS_DIR));
    let mut failed = Vec::new();
    for model in &models {
        let name = &model.contract.serving.name;
        // One that fails keeps nobody from hearing of the others.
        match test(model, &artifacts, &arguments.text).await {
            Ok(sentences) => failed.extend(sentences),
            Err(Failure::Run(sentence)) => failed.push(format!("{name}: {sentence}")),
            Err(usage) => return Err(usage),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Run(failed.join("\n"))) }
}

// === free functions ===

/// Loads one model, makes its checks, and prints; gives the sentences of checks that do not pass.
async fn test(
    model: &ModelConfig,
    artifacts: &ArtifactStore,
    texts: &[String],
) -> Result<Vec<String>, Failure> {
    let serving = &model.contract.serving;
    let name = &serving.name;
    let runtime = load(model, artifacts).await?;
    let run = |refusal: crate::model::refusal::Refusal| Failure::Run(refusal.to_string());
    let mut failed = Vec::new();
    for measured in self_test::measure(serving, &runtime).await.map_err(run)? {
        let judged = self_test::judge(std::slice::from_ref(&measured));
        let verdict = if judged.is_ok() { "passed" } else { "failed" };
        let cosine = measured.cosine.map_or("none".to_owned(), |cosine| format!("{cosine:.6}"));
        let (field, wanted) = (&measured.field, measured.wanted);
        print(&format!("# {name}: {field}: cosine {cosine}, at least {wanted}: {verdict}"))?;
        failed.extend(judged.err().map(|refusal| format!("{name}: {refusal}")));
    }
    let inputs = inputs(model, texts)?;
    if inputs.is_empty() {
        print(&format!("# {name}: has no spec.selfTest; give texts by --text"))?;
        return Ok(failed);
    }
    print(&format!("# {name}\nselfTest:"))?;
    let is_quantised =
        runtime.batcher.together().is_some_and(|together| together.needs_equal_lengths());
    let min_cosine = if is_quantised { MIN_COSINE_QUANTISED } else { MIN_COSINE };
    for input in inputs {
        let vector =
            self_test::vector(serving, &runtime, ("the input", &input)).await.map_err(run)?;
        let (input, vector) = (spelled(&input), cut(&vector));
        print(&format!("- input: {input}\n  vector: [{vector}]\n  minCosine: \"{min_cosine}\""))?;
    }
    Ok(failed)
}

/// Brings a model up on one thread, without a cache.
async fn load(model: &ModelConfig, artifacts: &ArtifactStore) -> Result<Arc<Runtime>, Failure> {
    let serving = &model.contract.serving;
    let loaded = load::load(serving, artifacts, &model.base, |_| {}).await;
    let LoadedModel { preparer, engine, .. } =
        loaded.map_err(|error| Failure::Run(error.to_string()))?;
    let metrics = Metrics::default().model(&serving.name);
    let served = ServedModel::new(model.contract.clone(), metrics.clone());
    let config = CacheConfig {
        folder: model.base.clone(),
        storage: CacheStorage { mode: CacheMode::Disabled, ..serving.cache },
        dimensions: serving.output.dimensions.get() as usize,
    };
    let (policy, clock) = (Arc::clone(&served.policy), Arc::new(SystemClock));
    let cache = Cache::open(config, policy, clock, metrics.cache.clone()).await;
    let config = BatcherConfig {
        workers: NonZeroUsize::MIN,
        batching: serving.batching,
        longest: preparer.longest(),
    };
    let start = move || {
        let batcher = Batcher::start(engine, config, |length| preparer.sample(length), metrics);
        batcher.map(|batcher| {
            let (fetcher, flights) = (None, Arc::default());
            Runtime { fetcher, preparer, batcher, cache, flights }
        })
    };
    let started = spawn_blocking(start).await;
    let started =
        started.map_err(|_| Failure::Run("measuring the model ended early".to_owned()))?;
    started.map(Arc::new).map_err(|error| Failure::Run(format!("no threads: {error}")))
}

/// What vectors are printed of: the texts given, or the inputs of the spec, each once.
fn inputs(model: &ModelConfig, texts: &[String]) -> Result<Vec<SelfTestInput>, Failure> {
    let serving = &model.contract.serving;
    if !texts.is_empty() {
        let Input::Text(_) = &serving.input else {
            let sentence = format!("--text: model {:?} takes no text", serving.name);
            return Err(Failure::Usage(sentence));
        };
        return Ok(texts.iter().cloned().map(SelfTestInput::Text).collect());
    }
    let mut inputs: Vec<SelfTestInput> = Vec::new();
    for test in &serving.self_test {
        if !inputs.contains(&test.input) {
            inputs.push(test.input.clone());
        }
    }
    Ok(inputs)
}

/// Whether texts may stand in a spec.
fn check_texts(texts: &[String]) -> Result<(), Failure> {
    if texts.len() > MOST_CHECKS {
        let sentence =
            format!("--text: {} texts given; a spec has at most {MOST_CHECKS}", texts.len());
        return Err(Failure::Usage(sentence));
    }
    let wrong = texts.iter().find(|text| !(1..=MOST_CHARACTERS).contains(&text.chars().count()));
    wrong.map_or(Ok(()), |text| {
        let characters = text.chars().count();
        let sentence = format!(
            "--text: has {characters} characters; 1 to {MOST_CHARACTERS} are allowed in a spec"
        );
        Err(Failure::Usage(sentence))
    })
}

/// An input as YAML. JSON is YAML.
fn spelled(input: &SelfTestInput) -> String {
    let json = |text: &String| serde_json::Value::from(text.as_str()).to_string();
    match input {
        SelfTestInput::Text(text) => format!("{{text: {}}}", json(text)),
        SelfTestInput::Category(id) => format!("{{category: {}}}", json(id)),
        SelfTestInput::Tensor(values) => {
            let values: Vec<String> = values.iter().map(f64::to_string).collect();
            format!("{{tensor: [{}]}}", values.join(", "))
        }
    }
}

/// A vector with no more digits than tell it from others.
fn cut(vector: &Vector) -> String {
    let largest = vector.values().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    #[expect(clippy::cast_possible_truncation, reason = "an exponent of single precision")]
    let exponent = if largest > 0.0 { largest.log10().floor() as i32 } else { 0 };
    let decimals = usize::try_from(DIGITS - 1 - exponent).unwrap_or(0);
    let values: Vec<String> = vector.values().map(|value| format!("{value:.decimals$}")).collect();
    values.join(", ")
}

fn print(text: &str) -> Result<(), Failure> {
    super::read_on(writeln!(io::stdout().lock(), "{text}")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_vector_points_where_the_whole_one_does() {
        for scale in [1e-6_f32, 0.1, 1.0, 12_345.0] {
            let values: Vec<f32> = (1..=384_u16).map(|n| scale * (f32::from(n)).sin()).collect();
            let whole = Vector::from_values(&values);
            let text = cut(&whole);
            assert!(text.len() < 384 * 16, "{text}");
            let read: Vec<f32> = text.split(", ").map(|value| value.parse().unwrap()).collect();
            let cosine = whole.cosine(&Vector::from_values(&read)).unwrap();
            assert!(cosine > 0.999_999, "{scale}: {cosine}");
        }
        assert_eq!(cut(&Vector::from_values(&[0.0, 0.0])), "0.0000, 0.0000");
    }

    #[test]
    fn inputs_are_spelled_so_that_yaml_reads_them() {
        let text = "a: \"b\"\n# {c}".to_owned();
        assert_eq!(spelled(&SelfTestInput::Text(text)), r##"{text: "a: \"b\"\n# {c}"}"##);
        assert_eq!(spelled(&SelfTestInput::Tensor(vec![1.0, -0.5])), "{tensor: [1, -0.5]}");
        assert_eq!(spelled(&SelfTestInput::Category("7".to_owned())), "{category: \"7\"}");
    }

    #[test]
    fn texts_that_no_spec_may_have_are_refused() {
        assert_eq!(check_texts(&["a".to_owned()]), Ok(()));
        for texts in [vec![String::new()], vec!["x".repeat(4097)], vec!["a".to_owned(); 9]] {
            assert!(matches!(check_texts(&texts), Err(Failure::Usage(_))));
        }
    }
}
