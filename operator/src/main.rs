//! The operator's process: reads the command line and does what it says.

use std::process::ExitCode;

use clap::Parser as _;
use embark_operator::{
    app,
    args::{Arguments, Command, Crds},
    crds, telemetry,
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::start(arguments.log_format, &arguments.log_level)?;
    match arguments.command {
        Command::Run(run) => app::run(&run).await?,
        Command::Crds(Crds::Print) => crds::print()?,
        Command::Crds(Crds::Apply) => crds::apply().await?,
    }
    Ok(())
}
