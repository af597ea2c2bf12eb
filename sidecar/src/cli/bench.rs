//! `bench`: calls that come when they come, as those of users do, and how long each took from the moment it was due.
//!
//! A load that waits for an answer before it sends the next call sends least where the server is slowest, and so leaves out
//! the calls that would have waited (coordinated omission). Here a call's time begins when it is due, also when it is
//! sent late.

mod report;
mod texts;

use std::{sync::Arc, thread, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::Failure;
use crate::{
    args,
    grpc::client::{Asked, CallFailed, Client},
};
use report::Tally;
use texts::Texts;

/// Calls that are due and not sent yet. Past it the load comes late, and its calls' times say so.
const DUE: usize = 1024;

/// Runs the command.
///
/// # Errors
/// The server does not answer, the model takes no texts, or no call was answered.
pub async fn run(arguments: args::Bench) -> Result<(), Failure> {
    let failure = |error: CallFailed| Failure::Run(error.to_string());
    let mut clients = Vec::new();
    for _ in 0..arguments.connections.get() {
        clients.push(Client::connect(&arguments.asked.server).await.map_err(failure)?);
    }
    let model = clients[0].describe(&arguments.asked.model).await.map_err(failure)?;
    if !model.takes_texts {
        return Err(Failure::Run("bench sends texts, and the model takes another kind".to_owned()));
    }
    if arguments.items as usize > model.max_items {
        let (items, most) = (arguments.items, model.max_items);
        return Err(Failure::Usage(format!("--items: {items} given; the model takes {most}")));
    }
    let tally = Arc::new(Mutex::new(Tally::new()));
    let (began, took) = drive(&arguments, clients, &tally).await?;
    let report = tally.lock().report(arguments.rate, took);
    tracing::debug!(seconds = began.elapsed().as_secs_f64(), "the load has ended");
    super::read_on(report.print(arguments.json))?;
    match report.answered() {
        0 => Err(Failure::Run("no call was answered".to_owned())),
        _ => Ok(()),
    }
}

/// Sends the load, and waits until the last of it is answered.
async fn drive(
    arguments: &args::Bench,
    clients: Vec<Client>,
    tally: &Arc<Mutex<Tally>>,
) -> Result<(Instant, Duration), Failure> {
    let mut texts = Texts::new(arguments);
    let asked = Arc::new(Asked {
        model: arguments.asked.model.clone(),
        prompt: arguments.asked.prompt.clone(),
        on_miss: arguments.on_miss,
        timeout: arguments.timeout,
    });
    let room = Arc::new(Semaphore::new(arguments.in_flight.get()));
    let began = Instant::now();
    let mut due = pace(arguments, began)?;
    let progress = progress();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut calls, mut turn) = (JoinSet::new(), 0);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let at = tokio::select! {
            at = due.recv() => at,
            // What was measured so far is told.
            _ = &mut interrupted => break,
            _ = ticks.tick() => {
                progress.set_message(tally.lock().glance(began.elapsed()));
                while calls.try_join_next().is_some() {}
                continue;
            }
        };
        let Some(at) = at else { break };
        // Never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        turn = (turn + 1) % clients.len();
        let (mut client, batch) = (clients[turn].clone(), texts.batch());
        let (asked, tally) = (Arc::clone(&asked), Arc::clone(tally));
        calls.spawn(async move {
            let outcome = client.call_once(batch, &asked).await;
            tally.lock().note(at.elapsed(), &outcome);
            drop(permit);
        });
    }
    while calls.join_next().await.is_some() {}
    progress.finish_and_clear();
    Ok((began, began.elapsed()))
}

/// When calls are due, told at those times by a thread of its own: a timer of the runtime is as coarse as what it is to
/// measure.
fn pace(arguments: &args::Bench, began: Instant) -> Result<mpsc::Receiver<Instant>, Failure> {
    let (sender, receiver) = mpsc::channel(DUE);
    let (rate, until) = (arguments.rate, began + arguments.duration);
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let work = move || {
        let mut at = began;
        loop {
            // Arrivals that know nothing of each other: their gaps are exponential.
            at += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            if at >= until {
                return;
            }
            while let Some(left) =
                at.checked_duration_since(Instant::now()).filter(|l| !l.is_zero())
            {
                thread::park_timeout(left);
            }
            if sender.blocking_send(at).is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("bench-pace".to_owned()).spawn(work);
    started.map_err(|error| Failure::Run(format!("no thread to send calls from: {error}")))?;
    Ok(receiver)
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is right");
    // Hidden by itself where standard error is no terminal.
    ProgressBar::new_spinner().with_style(style)
}
