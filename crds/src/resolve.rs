//! From a spec to the contract, or to everything that is wrong with it.
//!
//! Pure: it reads no file, asks no server and knows no clock. It repeats every bound of the schema and every rule, so that
//! a spec which an API server would refuse is refused here with the same sentence, and adds what no schema can say.

use std::{num::NonZeroU32, time::Duration};

use serde_json::{Value, json};

use crate::{
    contract::{
        self, Artifact, Batching, CachePolicy, CacheStorage, CategoricalInput, Contract,
        DefaultVector, Endpoint, ImageInput, ImageUrls, Input, Output, Prompt, SelfTest,
        SelfTestExpected, SelfTestInput, ServingConfig, Sha256, TensorInput, TextInput,
    },
    field::{MAX_ERRORS, join},
    rules, schema, v1alpha1,
};

pub mod duration;
mod limits;
pub mod quantity;
mod uri;

pub use crate::field::FieldError;
use crate::v1alpha1::{DefaultVectorType, DurationText, EmbeddingModelSpec, Quantity};

/// Where a model is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// By a sidecar started by hand: `file://` is accepted, `pvc://` is not.
    Local,
    /// In a cluster: `pvc://` is accepted, `file://` is not.
    Cluster,
}

/// What a model of this name and spec is, with every default filled in.
///
/// # Errors
/// Everything that is wrong with it, each at its field; at most 64 errors.
pub fn resolve(
    name: &str,
    spec: &EmbeddingModelSpec,
    target: Target,
) -> Result<Contract, Vec<FieldError>> {
    let value = serde_json::to_value(spec)
        .map_err(|error| vec![FieldError::of_field("spec", format!("cannot be read: {error}"))])?;
    let object = json!({ "metadata": { "name": name }, "spec": value });
    let mut errors = schema::check_spec(&object["spec"]);
    errors.extend(rules::broken(&object));
    limits::check(&object["spec"], spec, target, &mut errors);
    errors.truncate(MAX_ERRORS);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut builder = Builder { errors };
    let contract = builder.contract(name, spec);
    if builder.errors.is_empty() { Ok(contract) } else { Err(builder.errors) }
}

/// The rules that a change of a spec breaks, such as an epoch that falls.
pub fn check_change(old: &EmbeddingModelSpec, new: &EmbeddingModelSpec) -> Vec<FieldError> {
    let object = |spec| Some(json!({ "spec": serde_json::to_value(spec).ok()? }));
    match (object(old), object(new)) {
        (Some(old), Some(new)) => rules::broken_by_change(&old, &new),
        _ => vec![FieldError::of_field("spec", "cannot be read")],
    }
}

/// Builds a contract of a spec that was found good. A value that still cannot be read becomes an error, not a guess.
struct Builder {
    errors: Vec<FieldError>,
}

// === impl Builder ===

impl Builder {
    fn contract(&mut self, name: &str, spec: &EmbeddingModelSpec) -> Contract {
        let serving = ServingConfig {
            version: contract::VERSION,
            name: name.to_owned(),
            model: self.artifact("spec.model.source", &spec.model.source),
            artifact_size_limit: self.bytes("spec.model.sizeLimit", &spec.model.size_limit),
            output: self.output(&spec.model.output),
            input: self.input(&spec.input),
            cache: CacheStorage {
                mode: spec.cache.mode.into(),
                memory_bytes: self
                    .bytes("spec.cache.memory.sizeLimit", &spec.cache.memory.size_limit),
                disk_bytes: self.bytes("spec.cache.disk.sizeLimit", &spec.cache.disk.size_limit),
            },
            batching: self.batching(&spec.batching),
            self_test: self.self_tests(&spec.self_test),
            endpoint: spec.endpoint.as_ref().map(|endpoint| Endpoint {
                tls: endpoint.tls.is_some(),
                client_ca: endpoint.tls.as_ref().is_some_and(|tls| tls.client_ca_ref.is_some()),
                token: endpoint.token_secret_ref.is_some(),
            }),
        };
        Contract { serving, policy: self.policy(&spec.cache) }
    }

    fn output(&mut self, output: &v1alpha1::Output) -> Output {
        let default_dimensions = output.truncate_dimensions.unwrap_or(output.dimensions);
        Output {
            name: output.name.clone(),
            dimensions: self.not_zero("spec.model.output.dimensions", output.dimensions),
            default_dimensions: self
                .not_zero("spec.model.output.truncateDimensions", default_dimensions),
            normalization: output.normalization.into(),
        }
    }

    fn input(&mut self, input: &v1alpha1::Input) -> Input {
        let v1alpha1::Input { text, image, tensor, categorical } = input;
        match (text, image, tensor, categorical) {
            (Some(text), ..) => Input::Text(self.text(text)),
            (_, Some(image), ..) => Input::Image(self.image(image)),
            (_, _, Some(tensor), _) => Input::Tensor(TensorInput {
                shape: tensor.shape.clone(),
                dtype: tensor.dtype.into(),
            }),
            (_, _, _, Some(categorical)) => {
                let field = "spec.input.categorical.vocabulary";
                let vocabulary = self.artifact(field, &categorical.vocabulary);
                Input::Categorical(CategoricalInput { vocabulary })
            }
            (None, None, None, None) => {
                self.errors.push(FieldError::of_field("spec.input", "must not be empty"));
                let dtype = contract::TensorDtype::Float32;
                Input::Tensor(TensorInput { shape: Vec::new(), dtype })
            }
        }
    }

    fn text(&mut self, text: &v1alpha1::TextInput) -> TextInput {
        TextInput {
            tokenizer: self.artifact("spec.input.text.tokenizer", &text.tokenizer),
            prompts: text
                .prompts
                .iter()
                .map(|prompt| Prompt { name: prompt.name.clone(), prefix: prompt.prefix.clone() })
                .collect(),
            default_prompt: text.default_prompt.clone(),
            max_tokens: text.max_tokens,
            size_limit: self.bytes("spec.input.text.sizeLimit", &text.size_limit),
            overlong: text.overlong.into(),
            pooling: text.pooling.into(),
        }
    }

    fn image(&mut self, image: &v1alpha1::ImageInput) -> ImageInput {
        ImageInput {
            width: image.width,
            height: image.height,
            resize: image.resize.into(),
            layout: image.layout.into(),
            channels: image.channels.into(),
            dtype: image.dtype.into(),
            mean: for_each_channel(&image.mean),
            std: for_each_channel(&image.std),
            size_limit: self.bytes("spec.input.image.sizeLimit", &image.size_limit),
            max_pixels: image.max_pixels,
            urls: image.urls.as_ref().map(|urls| ImageUrls {
                allowed_hosts: urls.allowed_hosts.clone(),
                allowed_cidrs: urls.allowed_cidrs.clone(),
                timeout: self.time("spec.input.image.urls.timeout", &urls.timeout),
            }),
        }
    }

    fn batching(&mut self, batching: &v1alpha1::Batching) -> Batching {
        Batching {
            max_items: batching.max_items,
            max_tokens: batching.max_tokens,
            max_duration: self.time("spec.batching.maxDuration", &batching.max_duration),
            max_delay: self.time("spec.batching.maxDelay", &batching.max_delay),
            queue_max_items: batching.queue.max_items,
            queue_max_tokens: batching.queue.max_tokens,
        }
    }

    fn self_tests(&mut self, tests: &[v1alpha1::SelfTest]) -> Vec<SelfTest> {
        let mut resolved = Vec::new();
        for (index, test) in tests.iter().enumerate() {
            let field = format!("spec.selfTest[{index}]");
            let input = self.self_test_input(&join(&field, "input"), &test.input);
            let expected = match (&test.vector, &test.similar_to) {
                (Some(vector), _) => Some(SelfTestExpected::Vector(single_precision(vector))),
                (None, Some(other)) => self
                    .self_test_input(&join(&field, "similarTo"), other)
                    .map(SelfTestExpected::SimilarTo),
                (None, None) => None,
            };
            match (input, expected, test.min_cosine.parse::<f64>()) {
                (Some(input), Some(expected), Ok(cosine)) => {
                    resolved.push(SelfTest { input, expected, min_cosine: cosine + 0.0 });
                }
                _ => self.errors.push(FieldError::of_field(field, "is not complete")),
            }
        }
        resolved
    }

    fn self_test_input(
        &mut self,
        field: &str,
        input: &v1alpha1::SelfTestInput,
    ) -> Option<SelfTestInput> {
        let v1alpha1::SelfTestInput { text, category, tensor } = input;
        let text = text.clone().map(SelfTestInput::Text);
        let category = || category.clone().map(SelfTestInput::Category);
        let tensor = || tensor.as_deref().map(positive_zero).map(SelfTestInput::Tensor);
        let input = text.or_else(category).or_else(tensor);
        if input.is_none() {
            self.errors.push(FieldError::of_field(field, "must not be empty"));
        }
        input
    }

    fn policy(&mut self, cache: &v1alpha1::Cache) -> CachePolicy {
        let values = cache.default_vector.values.as_deref().unwrap_or_default();
        CachePolicy {
            version: contract::VERSION,
            ttl: self.time("spec.cache.ttl", &cache.ttl),
            ttl_jitter_percent: cache.ttl_jitter_percent,
            stale_while_revalidate: self
                .time("spec.cache.staleWhileRevalidate", &cache.stale_while_revalidate),
            negative_ttl: self.time("spec.cache.negativeTTL", &cache.negative_ttl),
            on_miss: cache.on_miss.into(),
            wait_budget: cache
                .wait_budget
                .as_ref()
                .map(|budget| self.time("spec.cache.waitBudget", budget)),
            default_vector: match cache.default_vector.type_ {
                DefaultVectorType::Zero => DefaultVector::Zero,
                DefaultVectorType::Values => DefaultVector::Values(single_precision(values)),
            },
            epoch: cache.epoch,
            allow_invalidation: cache.allow_invalidation,
        }
    }

    fn artifact(&mut self, field: &str, artifact: &v1alpha1::Artifact) -> Artifact {
        let location = uri::locate(artifact).unwrap_or_else(|message| {
            let value = Value::from(artifact.uri.as_str());
            self.errors.push(FieldError::new(join(field, "uri"), Some(&value), message));
            contract::Location::File { path: String::new() }
        });
        let sha256 = Sha256::parse(&artifact.sha256).unwrap_or_else(|error| {
            self.errors.push(FieldError::of_field(join(field, "sha256"), error.to_string()));
            Sha256([0; 32])
        });
        Artifact {
            location,
            sha256,
            has_secret: artifact.secret_ref.is_some(),
            has_ca_bundle: artifact.ca_bundle_ref.is_some(),
        }
    }

    fn bytes(&mut self, field: &str, size: &Quantity) -> u64 {
        quantity::bytes(&size.0).unwrap_or_else(|| {
            let value = Value::from(size.0.as_str());
            self.errors.push(FieldError::new(field, Some(&value), "must be a quantity"));
            0
        })
    }

    fn time(&mut self, field: &str, time: &DurationText) -> Duration {
        duration::parse(&time.0).unwrap_or_else(|| {
            let value = Value::from(time.0.as_str());
            self.errors.push(FieldError::new(field, Some(&value), "must be a duration"));
            Duration::ZERO
        })
    }

    fn not_zero(&mut self, field: &str, number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap_or_else(|| {
            self.errors.push(FieldError::of_field(field, "must be above 0"));
            NonZeroU32::MIN
        })
    }
}

// === free functions ===

/// One number for all channels stands for three equal ones, so that both ways to write it make one contract.
fn for_each_channel(numbers: &[f64]) -> Vec<f64> {
    match numbers {
        [one] => vec![one + 0.0; 3],
        numbers => positive_zero(numbers),
    }
}

/// `-0.0` becomes `0.0`: the API server does not tell the two apart.
fn positive_zero(numbers: &[f64]) -> Vec<f64> {
    numbers.iter().map(|number| number + 0.0).collect()
}

fn single_precision(numbers: &[f64]) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the schema to what f32 holds")]
    numbers.iter().map(|number| (number + 0.0) as f32).collect()
}

#[cfg(test)]
mod tests;
