//! Arguments of `bench`.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::Asked;

/// Send a running server calls as users do, and say how long they took.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar bench --model quickstart --rate 500 --duration 1m
  embark-sidecar bench --address models:8081 --rate 50 --keys 1000000 --zipf 0.9 --items 32 --json

Calls come at random times, whether or not earlier ones are answered, and a call's time is counted
from when it was due. Texts are made of words and drawn from --keys by Zipf's law, so that a cache
answers some far more often than others; they stay in the server's cache, and with the same --seed a
second run finds them there. Ctrl-C ends it early, with what was measured. Ends with 1 when no call
was answered.")]
pub struct Bench {
    /// Who is asked.
    #[command(flatten)]
    pub asked: Asked,
    /// Calls a second.
    #[arg(long, value_name = "N", default_value = "100", value_parser = rate, allow_negative_numbers = true)]
    pub rate: f64,
    /// How long calls are sent.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = time)]
    pub duration: Duration,
    /// Connections, which take turns.
    #[arg(long, value_name = "N", default_value = "2")]
    pub connections: NonZeroUsize,
    /// Calls that may wait for an answer at a time; past it the load comes late, and the times say so.
    #[arg(long, value_name = "N", default_value = "10000")]
    pub in_flight: NonZeroUsize,
    /// Items of a call.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub items: u32,
    /// How many texts there are.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = keys)]
    pub keys: NonZeroU32,
    /// How much more often the first are drawn: the one of rank n as often as 1 / n^S; 0: all alike.
    #[arg(long, value_name = "S", default_value = "1.0", value_parser = slope, allow_negative_numbers = true)]
    pub zipf: f64,
    /// Words of a text.
    #[arg(long, value_name = "N", default_value = "8")]
    pub words: NonZeroU32,
    /// The deadline of each call.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time)]
    pub timeout: Duration,
    /// What to do about a text that is not cached; by default what the model's policy says.
    #[arg(long, value_enum)]
    pub on_miss: Option<OnMiss>,
    /// The same number, the same texts at the same times.
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do about a text that is not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnMiss {
    /// Compute it and wait.
    Wait,
    /// Take the default vector, and have it computed behind.
    Default,
    /// Fail, and compute nothing.
    Fail,
}

// === free functions ===

fn time(text: &str) -> Result<Duration, String> {
    let time = super::duration(text)?;
    (!time.is_zero())
        .then_some(time)
        .ok_or_else(|| "is no time; more than 0s is allowed".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.001..=1e6).ok_or_else(|| "is not a number from 0.001 to 1000000".to_owned())
}

fn slope(text: &str) -> Result<f64, String> {
    number(text, 0.0..=10.0).ok_or_else(|| "is not a number from 0 to 10".to_owned())
}

fn number(text: &str, allowed: std::ops::RangeInclusive<f64>) -> Option<f64> {
    text.parse().ok().filter(|number| allowed.contains(number))
}

fn keys(text: &str) -> Result<NonZeroU32, String> {
    let keys: Option<NonZeroU32> =
        text.parse().ok().filter(|keys: &NonZeroU32| keys.get() <= 10_000_000);
    keys.ok_or_else(|| "is not a whole number from 1 to 10000000".to_owned())
}
