//! Logs, on standard error: text for people, JSON for machines.

use std::{io::IsTerminal as _, panic::PanicHookInfo, sync::Arc};

use clap::ValueEnum;
use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, reload};

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

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

/// What is logged. It may be changed while the process runs; clones share it.
#[derive(Clone)]
pub struct LogLevel(Arc<Current>);

struct Current {
    level: Mutex<String>,
    reload: Reload,
}

/// A word that is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a level; it must be {LEVELS}, or a filter by module such as embark_sidecar=debug,info"
)]
pub struct NotALevel(String);

/// Why nothing can be logged, as a sentence for people.
#[derive(Debug, thiserror::Error)]
pub enum NoLogs {
    /// A part of the filter is none.
    #[error("--log-level: {0}")]
    Level(NotALevel),
    /// Logging was started before.
    #[error("failed to start logging: {0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
}

// === impl LogLevel ===

impl LogLevel {
    /// What is logged now.
    pub fn get(&self) -> String {
        self.0.level.lock().clone()
    }

    /// Logs something else from now on.
    ///
    /// # Errors
    /// The filter does not parse; nothing changes.
    pub fn set(&self, level: &str) -> Result<(), NotALevel> {
        let filter = filter(level)?;
        let mut current = self.0.level.lock();
        if let Err(error) = (self.0.reload)(filter) {
            // Only when the subscriber is gone, and with it the process.
            tracing::error!(%error, "the level of the log cannot be changed");
        }
        level.clone_into(&mut current);
        Ok(())
    }
}

// === free functions ===

/// Starts logging. `level` is a filter such as `info` or `embark_sidecar=debug,warn`.
///
/// # Errors
/// The filter does not parse, or logging was started before.
pub fn start(format: LogFormat, level: &str) -> Result<LogLevel, NoLogs> {
    let filter = filter(level).map_err(NoLogs::Level)?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that nobody reads any more would be complained of on standard error, which panics then.
    let logs = logs.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    let (started, reload): (_, Reload) = match format {
        LogFormat::Text => {
            let logs = logs.with_filter_reloading();
            let handle = logs.reload_handle();
            (logs.try_init(), Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true).with_filter_reloading();
            let handle = logs.reload_handle();
            (logs.try_init(), Box::new(move |filter| handle.reload(filter)))
        }
    };
    started.map_err(NoLogs::Start)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogLevel(Arc::new(Current { level: Mutex::new(level.to_owned()), reload })))
}

/// The filter that a text means. To the library a word that is no level is the name of a module, of which everything is
/// logged, and of all others nothing: a slip of the pen would be a log without lines.
fn filter(text: &str) -> Result<EnvFilter, NotALevel> {
    for part in text.split(',') {
        let names_a_module = part.contains(['=', ':', '[']);
        if !names_a_module && (part.is_empty() || part.parse::<LevelFilter>().is_err()) {
            return Err(NotALevel(part.to_owned()));
        }
    }
    EnvFilter::try_new(text).map_err(|_| NotALevel(text.to_owned()))
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
            let start = format!("{wrong:?} is not a level; it must be error, warn, ");
            assert!(sentence.starts_with(&start), "{sentence}");
        }
    }
}
