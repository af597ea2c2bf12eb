//! Logs, on standard error: text for people, JSON for machines.

use std::{io::IsTerminal as _, panic::PanicHookInfo};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// The levels, for sentences.
const LEVELS: &str = "error, warn, info, debug, trace or off";

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why nothing can be logged, as a sentence for people.
#[derive(Debug, thiserror::Error)]
pub enum NoLogs {
    /// A part of the filter is none.
    #[error(
        "--log-level: {0:?} is not a level; it must be {LEVELS}, or a filter by module such as embark_sidecar=debug,info"
    )]
    Level(String),
    /// Logging was started before.
    #[error("failed to start logging: {0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging. `level` is a filter such as `info` or `embark_sidecar=debug,warn`.
///
/// # Errors
/// The filter does not parse, or logging was started before.
pub fn start(format: LogFormat, level: &str) -> Result<(), NoLogs> {
    let filter = filter(level)?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that nobody reads any more would be complained of on standard error, which panics then.
    let logs = logs.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    started.map_err(NoLogs::Start)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// The filter that a text means. To the library a word that is no level is the name of a module, of which everything is
/// logged, and of all others nothing: a slip of the pen would be a log without lines.
fn filter(text: &str) -> Result<EnvFilter, NoLogs> {
    for part in text.split(',') {
        let names_a_module = part.contains(['=', ':', '[']);
        if !names_a_module && (part.is_empty() || part.parse::<LevelFilter>().is_err()) {
            return Err(NoLogs::Level(part.to_owned()));
        }
    }
    EnvFilter::try_new(text).map_err(|_| NoLogs::Level(text.to_owned()))
}

/// A panic is one line. Those of libraries that are known to panic are contained by their callers, who say what it means.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    tracing::warn!(place, thread, "panicked: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_by_module_are_taken() {
        for text in [
            "info",
            "WARN",
            "off",
            "embark_sidecar=debug,info",
            "info,h2=off",
            "embark_sidecar::app=trace",
        ] {
            assert!(filter(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for (text, wrong) in [
            ("loud", "loud"),
            ("info,loud", "loud"),
            ("", ""),
            ("embark_sidecar=loud", "embark_sidecar=loud"),
        ] {
            let sentence = filter(text).unwrap_err().to_string();
            let start = format!("--log-level: {wrong:?} is not a level; it must be error, warn, ");
            assert!(sentence.starts_with(&start), "{sentence}");
        }
    }
}
