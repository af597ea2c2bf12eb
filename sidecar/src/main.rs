//! The embark sidecar's binary.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use embark_sidecar::args::{Arguments, Command};
use embark_sidecar::{
    app, cli,
    telemetry::{self, LogLevel},
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = telemetry::start(arguments.log_format, &arguments.log_level)
        .map_err(|error| cli::Failure::Usage(error.to_string()))
        .and_then(|level| run(arguments.command, level));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may listen there any more; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

fn run(command: Command, log_level: LogLevel) -> Result<(), cli::Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| cli::Failure::Run(format!("no threads: {error}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(arguments) => app::run(arguments, log_level).await,
            Command::Embed(arguments) => cli::embed::run(arguments).await,
            Command::Mean(arguments) => cli::mean::run(arguments).await,
            Command::Invalidate(arguments) => cli::invalidate::run(arguments).await,
            Command::Check(arguments) => cli::check::run(&arguments),
            Command::SelfTest(arguments) => cli::self_test::run(arguments).await,
            Command::Bench(arguments) => cli::bench::run(arguments).await,
        }
    });
    // What is still running then, such as an open of a damaged store, must not hold the process.
    runtime.shutdown_background();
    outcome
}
