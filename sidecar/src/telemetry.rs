//! Logs, on standard error: text for people, JSON for machines.

use std::{io::IsTerminal as _, panic::PanicHookInfo};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `level` is a filter such as `info` or `embark_sidecar=debug,warn`.
///
/// # Errors
/// The filter does not parse, or logging was started before.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| anyhow::anyhow!("--log-level: {level:?} is not a filter: {error}"))?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that nobody reads any more would be complained of on standard error, which panics then.
    let logs = logs.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("failed to start logging: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic is one line. Those of libraries that are known to panic are contained by their callers, who say what it means.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    tracing::warn!(place, thread, "panicked: {text}");
}
