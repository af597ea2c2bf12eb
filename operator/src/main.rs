//! The operator's process: reads the command line and does what it says.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Parser as _;
use embark_operator::args::{Arguments, Command, Crds};

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Crds(Crds::Print) => io::stdout()
            .write_all(embark_crds::crd::crd_yaml().as_bytes())
            .context("failed to write to standard output"),
    }
}
