//! The operator's process: reads the command line and does what it says.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Parser as _;
use embark_operator::args::{Arguments, Command, Crds};

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Crds(Crds::Print) => print(&embark_crds::crd::crd_yaml()),
    }
}

/// Writes all of it, or as much as the reader wants: one who has enough, as `head` does, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write to standard output"),
    }
}
