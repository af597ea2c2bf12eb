//! Logs, on standard error: text for people, JSON for machines. Where the environment names a collector, spans go there.

use std::{io::IsTerminal as _, sync::Arc};

use clap::ValueEnum;
use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    registry, reload,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::traces::{Export, NoTraces};

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

/// What the process says of itself while it runs.
pub struct Telemetry {
    /// What is logged.
    pub level: LogLevel,
    /// Where spans go.
    pub traces: Export,
}

/// A word that is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a level; it must be {LEVELS}, or a filter by module such as embark_operator=debug,info"
)]
pub struct NotALevel(String);

/// Why logging cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A part of the filter is none.
    #[error("--log-level: {0}")]
    Level(#[source] NotALevel),
    /// Spans cannot go where the environment says.
    #[error(transparent)]
    Traces(NoTraces),
    /// It was started before.
    #[error("failed to start logging")]
    Started(#[source] TryInitError),
}

// === impl LogLevel ===

impl LogLevel {
    /// What is logged now.
    pub(crate) fn get(&self) -> String {
        self.0.level.lock().clone()
    }

    /// Logs something else from now on.
    ///
    /// # Errors
    /// The filter does not parse; nothing changes.
    pub(crate) fn set(&self, level: &str) -> Result<(), NotALevel> {
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

/// Starts logging, and sending spans where the environment asks for it and `traces` allows it.
///
/// # Errors
/// The filter does not parse, spans cannot be sent, or logging was started before.
pub fn start(format: LogFormat, level: &str, traces: Export) -> Result<Telemetry, StartError> {
    let filter = filter(level).map_err(StartError::Level)?;
    let (filter, handle) = reload::Layer::new(filter);
    let logs = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let logs = logs.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    let logs = match format {
        LogFormat::Text => logs.with_filter(filter).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).with_filter(filter).boxed(),
    };
    // Our own spans, at any level of the log; libraries have others.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), Level::INFO);
    let spans = traces
        .tracer()
        .map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours));
    registry().with(logs).with(spans).try_init().map_err(StartError::Started)?;
    let reload: Reload = Box::new(move |filter| handle.reload(filter));
    let level = LogLevel(Arc::new(Current { level: Mutex::new(level.to_owned()), reload }));
    traces.tell();
    Ok(Telemetry { level, traces })
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

#[cfg(test)]
impl LogLevel {
    /// One that no log follows.
    pub(crate) fn of_nothing() -> Self {
        LogLevel(Arc::new(Current {
            level: Mutex::new("info".into()),
            reload: Box::new(|_| Ok(())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_by_module_are_taken() {
        for text in
            ["info", "WARN", "off", "embark_operator=debug,info", "embark_operator::lease=trace"]
        {
            assert!(filter(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for (text, wrong) in
            [("loud", "loud"), ("info,loud", "loud"), ("", ""), ("a=loud", "a=loud")]
        {
            let sentence = filter(text).unwrap_err().to_string();
            let start = format!("{wrong:?} is not a level; it must be error, warn, ");
            assert!(sentence.starts_with(&start), "{sentence}");
        }
    }
}
