//! `check`: what is wrong with manifests, everything at once.

use std::io::{self, Write as _};

use embark_crds::resolve::{FieldError, Target, resolve};

use super::Failure;
use crate::{
    args,
    config::{self, Found},
    model::support,
};

/// Runs the command.
///
/// # Errors
/// A manifest is wrong; every sentence has been printed.
pub fn run(arguments: &args::Check) -> Result<(), Failure> {
    let (found, mut wrong) = config::read_all(&arguments.file);
    for Found { path, manifest } in found {
        let name = &manifest.metadata.name;
        let place = format!("{}: {name}", path.display());
        let judge = |target| resolve(name, &manifest.spec, target);
        match verdict(arguments.target, judge) {
            Ok(accepted) => print(&format!("{place}: good ({accepted})"))?,
            Err(errors) => wrong.extend(errors.iter().map(|error| format!("{place}: {error}"))),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Run(wrong.join("\n"))) }
}

/// Who accepts a manifest; or what is wrong with it, by the target asked for, or by the one with less to say.
fn verdict(
    target: Option<args::Target>,
    judge: impl Fn(Target) -> Result<embark_crds::contract::Contract, Vec<FieldError>>,
) -> Result<String, Vec<FieldError>> {
    let local = || judge(Target::Local);
    let cluster = || judge(Target::Cluster);
    match target {
        Some(args::Target::Local) => local().map(|contract| said("local", &contract)),
        Some(args::Target::Cluster) => cluster().map(|_| "cluster".to_owned()),
        None => match (local(), cluster()) {
            (Ok(contract), Ok(_)) => Ok(said("local and cluster", &contract)),
            (Ok(contract), Err(_)) => Ok(said("local only", &contract)),
            (Err(_), Ok(_)) => Ok("cluster only".to_owned()),
            (Err(local), Err(cluster)) => {
                Err(if local.len() <= cluster.len() { local } else { cluster })
            }
        },
    }
}

/// A manifest may be good and still ask for what this version does not serve.
fn said(targets: &str, contract: &embark_crds::contract::Contract) -> String {
    let unsupported = support::unsupported(contract);
    let sentences: Vec<String> = unsupported.iter().map(ToString::to_string).collect();
    match sentences.is_empty() {
        true => targets.to_owned(),
        false => format!("{targets}; not served by this version: {}", sentences.join("; ")),
    }
}

fn print(line: &str) -> Result<(), Failure> {
    super::read_on(writeln!(io::stdout().lock(), "{line}")).map(drop)
}
