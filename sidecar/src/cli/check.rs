//! `check`: what is wrong with manifests, everything at once. It opens no file but the manifests.

use std::io::{self, Write as _};

use embark_crds::{
    contract::Contract,
    manifest::Manifest,
    resolve::{Target, resolve},
};

use super::Failure;
use crate::{
    args,
    config::{self, Found},
    model::support::{self, Offered},
};

/// What a person who reads "good" should know.
const NOT_LOOKED_AT: &str =
    "The manifests alone were checked: the files that they name were not opened.";

/// Runs the command.
///
/// # Errors
/// A manifest is wrong; every sentence has been printed.
pub fn run(arguments: &args::Check) -> Result<(), Failure> {
    let (found, mut wrong) = config::read_all(&arguments.file);
    let mut good = 0;
    for Found { path, manifest } in &found {
        let place = format!("{}: {}", path.display(), manifest.metadata.name);
        match verdict(arguments.target, |target| judge(manifest, target)) {
            Ok(accepted) => {
                good += 1;
                print(&format!("{place}: good ({accepted})"))?;
            }
            Err(errors) => wrong.extend(errors.iter().map(|error| format!("{place}: {error}"))),
        }
    }
    if good > 0 {
        print(NOT_LOOKED_AT)?;
    }
    // Where either will do, names need only be apart as far as in a cluster.
    let names = arguments.target.map_or(Target::Cluster, Target::from);
    wrong.extend(config::duplicates(&found, names));
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Run(wrong.join("\n"))) }
}

/// What a manifest means there, or everything that is wrong with it.
fn judge(manifest: &Manifest, target: Target) -> Result<Contract, Vec<String>> {
    let contract = resolve(&manifest.metadata.name, &manifest.spec, target)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let missing = support::missing_builtins(&contract);
    match missing.is_empty() {
        true => Ok(contract),
        false => Err(missing.iter().map(ToString::to_string).collect()),
    }
}

/// Who accepts a manifest; or what is wrong with it, by the target asked for, or by the one with less to say.
fn verdict(
    target: Option<args::Target>,
    judge: impl Fn(Target) -> Result<Contract, Vec<String>>,
) -> Result<String, Vec<String>> {
    let local = || judge(Target::Local);
    let cluster = || judge(Target::Cluster);
    match target {
        Some(args::Target::Local) => local().map(|contract| said("local", &contract)),
        Some(args::Target::Cluster) => cluster().map(|contract| said("cluster", &contract)),
        None => match (local(), cluster()) {
            (Ok(contract), Ok(_)) => Ok(said("local and cluster", &contract)),
            (Ok(contract), Err(_)) => Ok(said("local only", &contract)),
            (Err(_), Ok(contract)) => Ok(said("cluster only", &contract)),
            (Err(local), Err(cluster)) => {
                Err(if local.len() <= cluster.len() { local } else { cluster })
            }
        },
    }
}

/// A manifest may be good and still ask for what no server can give, as a queue that is too short for its texts.
fn said(targets: &str, contract: &Contract) -> String {
    let unsupported = support::unsupported(contract, Offered::ALL);
    let sentences: Vec<String> = unsupported.iter().map(ToString::to_string).collect();
    match sentences.is_empty() {
        true => targets.to_owned(),
        false => format!("{targets}; not served: {}", sentences.join("; ")),
    }
}

fn print(line: &str) -> Result<(), Failure> {
    super::read_on(writeln!(io::stdout().lock(), "{line}")).map(drop)
}
