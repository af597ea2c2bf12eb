//! Logs, on standard error: text for people, JSON for machines.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, filter, fmt,
    util::{SubscriberInitExt as _, TryInitError},
};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter does not parse.
    #[error(
        "--log-level: {level:?} is not error, warn, info, debug, trace or a filter such as embark_operator=debug,warn"
    )]
    Filter {
        /// What was given.
        level: String,
        /// What is wrong with it.
        source: filter::ParseError,
    },
    /// It was started before.
    #[error("failed to start logging")]
    Started(#[source] TryInitError),
}

/// Starts logging.
///
/// # Errors
/// The filter does not parse, or logging was started before.
pub fn start(format: LogFormat, level: &str) -> Result<(), StartError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|source| StartError::Filter { level: level.to_owned(), source })?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let logs = logs.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => logs.finish().try_init(),
        LogFormat::Json => logs.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(StartError::Started)
}
