//! `embed`: texts in, JSON lines out.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Failure;
use crate::{
    args,
    grpc::client::{CallFailed, Client, Embedded, Options},
};

/// Texts of one call.
const BATCH: usize = 32;
/// Calls in flight.
const IN_FLIGHT: usize = 4;
/// Numbers of failed texts that are told.
const SHOWN: usize = 8;

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Failed { error: &'a str },
    Embedded { vector: &'a [f32], source: &'static str, age_ms: u64, tokens: u32, truncated: bool },
}

/// Runs the command.
///
/// # Errors
/// The server does not answer, or refused a text; other texts are printed all the same.
pub async fn run(arguments: args::Embed) -> Result<(), Failure> {
    let failure = |error: CallFailed| Failure::Run(error.to_string());
    let args::Embed { asked: args::Asked { server, model, prompt }, dimensions, text } = arguments;
    let mut client = Client::connect(&server).await.map_err(failure)?;
    let most = client.describe(&model).await.map_err(failure)?.max_items;
    // Whoever types lines wants each answered; whoever pipes them wants them answered fast.
    let typed = text.is_empty() && io::stdin().is_terminal();
    let (batch, in_flight) = if typed { (1, 1) } else { (most.min(BATCH), IN_FLIGHT) };
    let options = Options { model, prompt, dimensions, waits: false };
    let progress = progress(text.is_empty());
    let calls = stream::iter(batches(text, batch)).map(|texts| {
        let (mut client, options) = (client.clone(), options.clone());
        async move {
            let texts = texts.map_err(Failure::Run)?;
            let embedded = client.embed(texts.clone(), &options).await.map_err(failure)?;
            Ok::<_, Failure>((texts, embedded))
        }
    });
    let mut calls = calls.buffered(in_flight);
    let mut failed = Vec::new();
    let mut answered = 0;
    while let Some((texts, embedded)) = calls.try_next().await? {
        let refused = (1..).zip(&embedded).filter(|(_, one)| one.error.is_some());
        failed.extend(refused.map(|(number, _)| answered + number));
        if !super::read_on(print(&texts, &embedded))? {
            break;
        }
        answered += texts.len();
        progress.inc(texts.len() as u64);
    }
    progress.finish_and_clear();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Run(summary(&failed))),
    }
}

/// The texts of the command line, or the lines of standard input, in batches; lines are read as they are needed. A blank
/// line is none that a model takes, but it is not passed over: the server's refusal of it stands in its place.
fn batches(texts: Vec<String>, size: usize) -> impl Iterator<Item = Result<Vec<String>, String>> {
    let from_input = texts.is_empty();
    let mut given = texts.into_iter().map(Ok);
    let mut lines = from_input.then(|| (1_usize..).zip(io::stdin().lock().lines()));
    let mut next = move || match &mut lines {
        Some(lines) => lines.next().map(|(number, line)| line.map_err(|e| unreadable(number, &e))),
        None => given.next(),
    };
    std::iter::from_fn(move || {
        let batch: Result<Vec<String>, String> = std::iter::from_fn(&mut next).take(size).collect();
        batch.map(|batch| (!batch.is_empty()).then_some(batch)).transpose()
    })
}

fn unreadable(line: usize, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => format!("standard input: line {line} is not UTF-8"),
        _ => format!("standard input: line {line}: {error}"),
    }
}

/// Which texts failed, by their numbers from 1: those of the lines that they came from and of the lines that say why.
fn summary(failed: &[usize]) -> String {
    let shown: Vec<String> = failed.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if failed.len() > SHOWN { ", …" } else { "" };
    let shown = shown.join(", ");
    match failed.len() {
        1 => format!("1 text failed; line {shown} of the output says why"),
        count => format!("{count} texts failed; lines {shown}{more} of the output say why"),
    }
}

fn print(texts: &[String], embedded: &[Embedded]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (text, one) in texts.iter().zip(embedded) {
        let outcome = match &one.error {
            Some(error) => Outcome::Failed { error },
            None => Outcome::Embedded {
                vector: &one.vector,
                source: one.source,
                age_ms: one.age_ms,
                tokens: one.tokens,
                truncated: one.truncated,
            },
        };
        serde_json::to_writer(&mut out, &Line { text, outcome })?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Progress on a terminal, when the texts come from standard input and the vectors go elsewhere.
fn progress(from_input: bool) -> ProgressBar {
    if !from_input || !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos} texts, {per_sec}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.expect("the template is right"))
}
