//! What a test, a cluster's guard and its inner process say to each other: a command a line, and a line as its answer.

use std::io::{self, BufRead as _, Write as _};

use tokio::sync::mpsc;

/// The lines of standard input. Full: the reader waits, since each command waits for its answer.
pub(super) fn standard_input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    // A thread of its own, which ends with the process: a read of standard input cannot be given up.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Writes an answer to standard output.
pub(super) fn answer(answer: &anyhow::Result<String>) -> io::Result<()> {
    let line = match answer {
        Ok(value) => format!("ok {value}"),
        Err(error) => format!("failed {error:#}").replace('\n', "\u{2028}"),
    };
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// What an answer says.
pub(super) fn parse(line: &str) -> anyhow::Result<String> {
    match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        ("ok", value) => Ok(value.to_owned()),
        ("failed", error) => anyhow::bail!("{}", error.replace('\u{2028}', "\n")),
        _ => anyhow::bail!("the cluster's guard has ended: {line}"),
    }
}
