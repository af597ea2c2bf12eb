//! What became of the calls.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::grpc::client::Called;

/// The longest that a call is told to have taken, in microseconds: an hour.
const MOST_MICROS: u64 = 3_600_000_000;
/// Digits of a time that are kept.
const DIGITS: u8 = 3;

/// What was counted so far.
pub(super) struct Tally {
    micros: Histogram<u64>,
    answered: u64,
    items: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
}

/// What is told at the end. Times are milliseconds from the moment that a call was due.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Calls a second that were asked for.
    rate: f64,
    seconds: f64,
    answered_per_second: f64,
    answered: u64,
    /// Items by the source of their vector, or by the reason of their failure.
    items: BTreeMap<String, u64>,
    /// Calls by the reason of their failure.
    failed: BTreeMap<String, u64>,
    latency_ms: Latency,
}

/// Of all calls, failed ones too.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

// === impl Tally ===

impl Tally {
    pub(super) fn new() -> Self {
        let micros = Histogram::new_with_max(MOST_MICROS, DIGITS);
        let micros = micros.expect("the bounds are those of a histogram");
        Tally { micros, answered: 0, items: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Notes a call that took so long.
    pub(super) fn note(&mut self, took: Duration, called: &Result<Called, String>) {
        self.micros.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        match called {
            Ok(Called(items)) => {
                self.answered += 1;
                for item in items {
                    *self.items.entry(item.clone()).or_default() += 1;
                }
            }
            Err(reason) => *self.failed.entry(reason.clone()).or_default() += 1,
        }
    }

    /// What is seen while it runs.
    pub(super) fn glance(&self, elapsed: Duration) -> String {
        let Latency { p50, p99, .. } = self.latency();
        let failed = self.failed.values().sum::<u64>();
        let (seconds, answered) = (elapsed.as_secs(), self.answered);
        format!(
            "{seconds} s: {answered} answered, {failed} failed, p50 {p50:.2} ms, p99 {p99:.2} ms"
        )
    }

    pub(super) fn report(&self, rate: f64, took: Duration) -> Report {
        let seconds = took.as_secs_f64();
        Report {
            rate,
            seconds,
            answered_per_second: self.answered as f64 / seconds.max(1e-9),
            answered: self.answered,
            items: self.items.clone(),
            failed: self.failed.clone(),
            latency_ms: self.latency(),
        }
    }

    fn latency(&self) -> Latency {
        let at = |quantile| self.micros.value_at_quantile(quantile) as f64 / 1000.0;
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

// === impl Report ===

impl Report {
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            out.write_all(b"\n")?;
        } else {
            self.table(&mut out)?;
        }
        out.flush()
    }

    fn table(&self, out: &mut impl io::Write) -> io::Result<()> {
        let Report { rate, seconds, answered, answered_per_second, .. } = self;
        writeln!(
            out,
            "calls    {answered} answered in {seconds:.1} s: {answered_per_second:.1} a second of {rate}"
        )?;
        writeln!(out, "items    {}", list(&self.items))?;
        writeln!(out, "failed   {}", list(&self.failed))?;
        let Latency { p50, p90, p99, p999, max } = self.latency_ms;
        writeln!(
            out,
            "latency  p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms, from when each was due"
        )
    }
}

// === free functions ===

fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_what_became_of_them() {
        let mut tally = Tally::new();
        let hit = || "HIT_MEMORY".to_owned();
        for micros in 1..=99 {
            tally.note(Duration::from_micros(micros * 100), &Ok(Called(vec![hit(), hit()])));
        }
        tally.note(Duration::from_secs(7200), &Err("QUEUE_FULL".to_owned()));
        let report = tally.report(50.0, Duration::from_secs(2));
        assert_eq!((report.answered, report.items["HIT_MEMORY"]), (99, 198));
        assert_eq!(report.failed["QUEUE_FULL"], 1);
        let Latency { p50, p99, max, .. } = report.latency_ms;
        assert!((p50 - 5.0).abs() < 0.01 && (p99 - 9.9).abs() < 0.02, "{p50} {p99}");
        assert!(max > 3_500_000.0, "{max}");
        let mut table = Vec::new();
        report.table(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(
            table.starts_with("calls    99 answered in 2.0 s: 49.5 a second of 50\n"),
            "{table}"
        );
        assert!(table.contains("failed   QUEUE_FULL 1\n"), "{table}");
    }
}
