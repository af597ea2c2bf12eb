//! The operator's process: reads the command line and does what it says.

use std::process::ExitCode;

use clap::Parser as _;
use embark_operator::{
    app,
    args::{Arguments, Command, Crds},
    check, crds, telemetry,
    traces::Export,
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { log_format, log_level, command } = arguments;
    let traces = match &command {
        Command::Run(run) => Export::start(&run.identity)?,
        // Others are over before anybody looks.
        _ => Export::default(),
    };
    let telemetry = telemetry::start(log_format, &log_level, traces)?;
    match command {
        Command::Run(run) => app::run(&run, telemetry).await?,
        Command::Crds(Crds::Print) => crds::print()?,
        Command::Crds(Crds::Apply) => crds::apply().await?,
        Command::Check(arguments) => return Ok(check::run(&arguments).await?.code().into()),
    }
    Ok(ExitCode::SUCCESS)
}
