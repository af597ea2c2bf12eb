//! `mean`: the mean vector of many inputs, as a manifest takes it for a default vector.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::Path,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Failure;
use crate::{
    args,
    grpc::client::{CallFailed, Client, Embedded, Options},
};

/// Inputs of one call.
const BATCH: usize = 32;
/// Calls in flight.
const IN_FLIGHT: usize = 4;
/// The file that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// An input, and the number of its line.
type Line = (usize, String);

/// The sum of vectors.
struct Sum {
    values: Vec<f64>,
    vectors: u64,
}

/// Runs the command.
///
/// # Errors
/// The inputs cannot be read, the server does not answer, or one of the inputs has no vector.
pub async fn run(arguments: args::Mean) -> Result<(), Failure> {
    let failure = |error: CallFailed| Failure::Run(error.to_string());
    let args::Mean { asked: args::Asked { server, model, prompt }, file } = arguments;
    let place = place(&file);
    let lines = lines(&file)?;
    let mut client = Client::connect(&server).await.map_err(failure)?;
    let described = client.describe(&model).await.map_err(failure)?;
    let dimensions = Some(described.dimensions);
    // A policy may answer a miss with the very vector that is being made here.
    let options = Options { model, prompt, dimensions, waits: true };
    let calls = stream::iter(batches(lines, described.max_items.min(BATCH))).map(|batch| {
        let (mut client, options) = (client.clone(), options.clone());
        async move {
            let (numbers, texts): (Vec<usize>, Vec<String>) = batch?.into_iter().unzip();
            let embedded = client.embed(texts, &options).await.map_err(failure)?;
            Ok::<_, Failure>((numbers, embedded))
        }
    });
    let mut calls = calls.buffered(IN_FLIGHT);
    let mut sum = Sum { values: vec![0.0; described.dimensions as usize], vectors: 0 };
    while let Some((numbers, embedded)) = calls.try_next().await? {
        for (number, one) in numbers.into_iter().zip(&embedded) {
            let added = sum.add(one);
            added.map_err(|why| Failure::Run(format!("{place}: line {number}: {why}")))?;
        }
    }
    let mean = sum.mean(described.normalized);
    let mean = mean.map_err(|why| Failure::Run(format!("{place}: {why}")))?;
    super::read_on(print(&mean)).map(drop)
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, one: &Embedded) -> Result<(), String> {
        if let Some(error) = &one.error {
            return Err(error.clone());
        }
        if one.vector.len() != self.values.len() {
            let (found, expected) = (one.vector.len(), self.values.len());
            return Err(format!("the server gave {found} values; its vectors have {expected}"));
        }
        self.values.iter_mut().zip(&one.vector).for_each(|(sum, value)| *sum += f64::from(*value));
        self.vectors += 1;
        Ok(())
    }

    /// The mean; of length 1 where the model's vectors are.
    fn mean(self, normalized: bool) -> Result<Vec<f32>, &'static str> {
        if self.vectors == 0 {
            return Err("has no inputs; each line that is not blank is one");
        }
        let length = self.values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let divisor = if normalized { length } else { self.vectors as f64 };
        if divisor == 0.0 {
            return Err("the vectors cancel each other out: their mean has no direction");
        }
        #[expect(clippy::cast_possible_truncation, reason = "the mean of what f32 holds")]
        Ok(self.values.iter().map(|value| (value / divisor) as f32 + 0.0).collect())
    }
}

// === free functions ===

/// What sentences call the file.
fn place(file: &Path) -> String {
    match file.as_os_str() == STANDARD_INPUT {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}

/// The file's lines that are not blank, read as they are needed.
fn lines(file: &Path) -> Result<impl Iterator<Item = Result<Line, Failure>> + use<>, Failure> {
    let place = place(file);
    let input: Box<dyn BufRead> = if file.as_os_str() == STANDARD_INPUT {
        Box::new(io::stdin().lock())
    } else {
        let unreadable = |error| Failure::Usage(format!("{place}: cannot be read: {error}"));
        Box::new(BufReader::new(File::open(file).map_err(unreadable)?))
    };
    let read = move |(number, line): (usize, io::Result<String>)| match line {
        Ok(line) if line.trim().is_empty() => None,
        Ok(line) => Some(Ok((number, line))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Some(Err(Failure::Run(format!("{place}: line {number} is not UTF-8"))))
        }
        Err(error) => Some(Err(Failure::Run(format!("{place}: line {number}: {error}")))),
    };
    Ok((1..).zip(input.lines()).filter_map(read))
}

fn batches(
    mut lines: impl Iterator<Item = Result<Line, Failure>>,
    size: usize,
) -> impl Iterator<Item = Result<Vec<Line>, Failure>> {
    std::iter::from_fn(move || {
        let batch: Result<Vec<Line>, Failure> = lines.by_ref().take(size).collect();
        batch.map(|batch| (!batch.is_empty()).then_some(batch)).transpose()
    })
}

/// In one line, so that it can be put behind a field at any depth.
fn print(mean: &[f32]) -> io::Result<()> {
    // Without exponents, which not every reader of YAML takes for numbers.
    let values: Vec<String> = mean.iter().map(ToString::to_string).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "{{type: Values, values: [{}]}}", values.join(", "))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(vectors: &[&[f32]]) -> Sum {
        let mut sum = Sum { values: vec![0.0; 2], vectors: 0 };
        for vector in vectors {
            let one = Embedded {
                vector: vector.to_vec(),
                source: "COMPUTED",
                age_ms: 0,
                tokens: 1,
                truncated: false,
                error: None,
            };
            sum.add(&one).unwrap();
        }
        sum
    }

    #[test]
    fn a_mean_is_normalised_where_the_vectors_are() {
        assert_eq!(sum(&[&[3.0, 0.0], &[3.0, 8.0]]).mean(false), Ok(vec![3.0, 4.0]));
        assert_eq!(sum(&[&[3.0, 0.0], &[3.0, 8.0]]).mean(true), Ok(vec![0.6, 0.8]));
    }

    #[test]
    fn what_has_no_mean_is_told() {
        assert!(sum(&[]).mean(false).unwrap_err().contains("no inputs"));
        let opposed = sum(&[&[1.0, 0.0], &[-1.0, 0.0]]);
        assert!(opposed.mean(true).unwrap_err().contains("no direction"));
        assert_eq!(sum(&[&[1.0, -0.0], &[-1.0, 0.0]]).mean(false), Ok(vec![0.0, 0.0]));
    }
}
