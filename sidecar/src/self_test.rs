//! The checks that a spec asks for before its model is ready: inputs whose vectors must be near to what is known of them.
//! They go the way of requests, through preparer, queue and engine; the cache is not asked.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use embark_crds::contract::{
    Input as Takes, SelfTest, SelfTestExpected, SelfTestInput, ServingConfig, TensorDtype,
};
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use crate::{
    batch::{Claim, Job, Outcome},
    embedding::{Embedding, Vector},
    error::Error,
    flight::{Take, Wanted},
    input::{Category, Class, Input, Tensor, Text},
    model::{engine::Row, pooling, refusal::Refusal},
    served::Runtime,
};

/// The most time that all checks of a model may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a check measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The check, such as `spec.selfTest[0]`.
    pub field: String,
    /// The cosine; `None`: a vector has no direction, as that of zeros.
    pub cosine: Option<f64>,
    /// The least that it should be.
    pub wanted: f64,
}

/// Who waits for a vector.
struct Waiter(Option<oneshot::Sender<Result<Embedding, Error>>>);

// === impl Measured ===

impl Measured {
    /// Whether it is as it should be. Rounding errors are not held against a model that gives the very vector.
    pub fn passes(&self) -> bool {
        self.cosine.is_some_and(|cosine| cosine >= self.wanted - 1e-6)
    }

    /// Why it does not pass.
    fn refusal(&self) -> Refusal {
        let wanted = self.wanted;
        let sentence = match self.cosine {
            Some(cosine) => format!("the cosine is {cosine:.6}, at least {wanted} is wanted"),
            None => format!("a vector of zeros has no cosine; at least {wanted} is wanted"),
        };
        Refusal::new(&self.field, sentence)
    }
}

// === impl Waiter ===

impl Claim for Waiter {
    fn take(&self, _: Class) -> Take {
        Take::Begin
    }

    fn wanted(&self) -> Wanted {
        Wanted::In(Class::Waiting)
    }

    fn complete(mut self: Box<Self>, outcome: Outcome) {
        if let Some(sender) = self.0.take() {
            // Nobody waits any more when it took too long.
            let _ = sender.send(outcome.result);
        }
    }
}

// === free functions ===

/// Makes the checks of a model, one after the other.
///
/// # Errors
/// An input has no vector, or they take too long.
pub async fn measure(
    serving: &ServingConfig,
    runtime: &Arc<Runtime>,
) -> Result<Vec<Measured>, Refusal> {
    let measuring = async {
        let mut measured = Vec::with_capacity(serving.self_test.len());
        for (index, test) in serving.self_test.iter().enumerate() {
            measured.push(measure_one(serving, runtime, (index, test)).await?);
        }
        Ok(measured)
    };
    let late = |_| {
        Refusal::new("spec.selfTest", format!("the checks took more than {} s", LIMIT.as_secs()))
    };
    timeout(LIMIT, measuring).await.map_err(late)?
}

/// Gives what was measured when all of it is as it should be.
///
/// # Errors
/// The first check that is not, and how many more there are.
pub fn judge(measured: &[Measured]) -> Result<(), Refusal> {
    let mut failed = measured.iter().filter(|measured| !measured.passes());
    let Some(first) = failed.next() else { return Ok(()) };
    let mut refusal = first.refusal();
    match failed.count() {
        0 => {}
        more => refusal.sentence += &format!(" (and {more} more)"),
    }
    Err(refusal)
}

/// The vector of an input, under the model's default prompt.
///
/// # Errors
/// It has none; a sentence that opens with `field`.
pub async fn vector(
    serving: &ServingConfig,
    runtime: &Arc<Runtime>,
    (field, input): (&str, &SelfTestInput),
) -> Result<Vector, Refusal> {
    let refuse = |why: String| Refusal::new(field, why);
    let (input, prefix) = (of(&serving.input, input).map_err(refuse)?, prefix(serving));
    let preparing = Arc::clone(runtime);
    let (bytes, prepared) = (runtime.preparer.waiting_bytes(&input), move || {
        preparing.preparer.prepare(&prefix, &preparing.preparer.canonical(input))
    });
    let prepared = spawn_blocking(prepared).await;
    let prepared = prepared.map_err(|_| refuse("preparing it ended early".to_owned()))?;
    let prepared = prepared.map_err(|error| refuse(error.message.clone()))?;
    let mut rows = Vec::with_capacity(prepared.rows.len());
    // One after the other: no queue is too short for that.
    for row in prepared.rows {
        rows.push(compute(runtime, bytes, row).await.map_err(refuse)?);
    }
    if let [row] = &rows[..] {
        return Ok(row.vector.clone());
    }
    let mean = pooling::mean_of_windows(&rows, serving.output.normalization);
    mean.map(|mean| mean.vector).map_err(|error| refuse(error.message.clone()))
}

/// The vector of a row.
async fn compute(runtime: &Runtime, bytes: usize, row: Row) -> Result<Embedding, String> {
    let place = runtime.batcher.reserve(Class::Waiting, bytes);
    let place = place.map_err(|full| full.to_string())?;
    let (sender, receiver) = oneshot::channel();
    let job = Job { row, claim: Box::new(Waiter(Some(sender))) };
    runtime.batcher.submit(place, job).map_err(|(full, _)| full.to_string())?;
    match receiver.await {
        Ok(outcome) => outcome.map_err(|error| error.message.clone()),
        Err(_) => Err("computing it ended early".to_owned()),
    }
}

async fn measure_one(
    serving: &ServingConfig,
    runtime: &Arc<Runtime>,
    (index, test): (usize, &SelfTest),
) -> Result<Measured, Refusal> {
    let field = format!("spec.selfTest[{index}]");
    let found = vector(serving, runtime, (&format!("{field}.input"), &test.input)).await?;
    let expected = match &test.expected {
        SelfTestExpected::Vector(values) => Vector::from_values(values),
        SelfTestExpected::SimilarTo(other) => {
            vector(serving, runtime, (&format!("{field}.similarTo"), other)).await?
        }
    };
    Ok(Measured { field, cosine: found.cosine(&expected), wanted: test.min_cosine })
}

/// What a request that names no prompt has before its text.
fn prefix(serving: &ServingConfig) -> String {
    let Takes::Text(text) = &serving.input else { return String::new() };
    let default = text.default_prompt.as_deref();
    let prompt = text.prompts.iter().find(|prompt| Some(prompt.name.as_str()) == default);
    prompt.map(|prompt| prompt.prefix.clone()).unwrap_or_default()
}

/// The input as requests have it.
fn of(takes: &Takes, input: &SelfTestInput) -> Result<Input, String> {
    match (takes, input) {
        (Takes::Text(_), SelfTestInput::Text(text)) => {
            let text = Text::from_utf8(Bytes::from(text.clone()));
            text.map(Input::Text).map_err(|error| error.to_string())
        }
        (Takes::Categorical(_), SelfTestInput::Category(id)) => {
            Ok(Input::Category(Category::Id(id.clone().into())))
        }
        (Takes::Tensor(tensor), SelfTestInput::Tensor(values)) => {
            let bytes = values.iter().map(|value| element(tensor.dtype, *value));
            let bytes = bytes.collect::<Result<Vec<Vec<u8>>, String>>()?.concat();
            Ok(Input::Tensor(Tensor::from_le_bytes(bytes.into())))
        }
        _ => Err("is of a kind that the model does not take".to_owned()),
    }
}

/// A value's bytes.
fn element(dtype: TensorDtype, value: f64) -> Result<Vec<u8>, String> {
    let whole = |least: i64, most: i64| -> Result<i64, String> {
        let allowed =
            || format!("{value} is not a whole number from {least} to {most}, as {dtype:?} holds");
        // Numbers of a spec are at most 1e15: as many whole ones as f64 holds exactly.
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 2^53")]
        let number = value as i64;
        let is_whole = value.fract() == 0.0 && value.abs() <= 9e15;
        if is_whole && (least..=most).contains(&number) { Ok(number) } else { Err(allowed()) }
    };
    let bytes = |number: i64, size: usize| number.to_le_bytes()[..size].to_vec();
    Ok(match dtype {
        #[expect(clippy::cast_possible_truncation, reason = "the model takes single precision")]
        TensorDtype::Float32 => (value as f32).to_le_bytes().to_vec(),
        TensorDtype::Float64 => value.to_le_bytes().to_vec(),
        TensorDtype::Int64 => bytes(whole(i64::MIN, i64::MAX)?, 8),
        TensorDtype::Int32 => bytes(whole(i32::MIN.into(), i32::MAX.into())?, 4),
        TensorDtype::Int8 => bytes(whole(i8::MIN.into(), i8::MAX.into())?, 1),
        TensorDtype::Uint8 => bytes(whole(0, u8::MAX.into())?, 1),
        TensorDtype::Bool => bytes(whole(0, 1)?, 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(index: usize, cosine: Option<f64>) -> Measured {
        Measured { field: format!("spec.selfTest[{index}]"), cosine, wanted: 0.9 }
    }

    #[test]
    fn the_first_check_that_fails_is_named_with_both_cosines() {
        assert_eq!(judge(&[measured(0, Some(0.9)), measured(1, Some(1.0))]), Ok(()));
        let tests = [measured(0, Some(0.95)), measured(1, Some(0.5)), measured(2, None)];
        let sentence = judge(&tests).unwrap_err().to_string();
        assert_eq!(
            sentence,
            "spec.selfTest[1]: the cosine is 0.500000, at least 0.9 is wanted (and 1 more)"
        );
        let zeros = judge(&tests[2..]).unwrap_err().to_string();
        assert!(zeros.contains("zeros"), "{zeros}");
    }

    #[test]
    fn values_become_bytes_of_the_models_type_or_are_refused() {
        for (dtype, value, bytes) in [
            (TensorDtype::Float32, 0.5, 0.5_f32.to_le_bytes().to_vec()),
            (TensorDtype::Float64, 0.1, 0.1_f64.to_le_bytes().to_vec()),
            (TensorDtype::Int64, -1e15, (-1_000_000_000_000_000_i64).to_le_bytes().to_vec()),
            (TensorDtype::Int32, -2.0, (-2_i32).to_le_bytes().to_vec()),
            (TensorDtype::Int8, -128.0, vec![0x80]),
            (TensorDtype::Uint8, 255.0, vec![255]),
            (TensorDtype::Bool, 1.0, vec![1]),
        ] {
            assert_eq!(element(dtype, value), Ok(bytes), "{dtype:?}");
        }
        for (dtype, value) in [
            (TensorDtype::Int64, 0.5),
            (TensorDtype::Int32, 3e9),
            (TensorDtype::Int8, 128.0),
            (TensorDtype::Uint8, -1.0),
            (TensorDtype::Bool, 2.0),
        ] {
            let refused = element(dtype, value).unwrap_err();
            assert!(refused.contains(&format!("{dtype:?}")), "{refused}");
        }
    }
}
