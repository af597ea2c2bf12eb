//! The command line.

mod check;
mod webhook;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    sync::LazyLock,
};

use clap::{Args, Parser, Subcommand};

pub use self::check::{Account, Check, Output};
pub use self::webhook::Webhook;
use crate::{names::LEASE, telemetry::LogFormat};

/// The embark operator: reconciles EmbeddingModels.
#[derive(Debug, Parser)]
#[command(
    name = "embark-operator",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// How log lines are written, to standard error.
    #[arg(long, value_enum, default_value_t, global = true, env = "EMBARK_LOG_FORMAT", help_heading = LOGS)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace; or a filter by module.
    #[arg(long, default_value = "info", global = true, env = "EMBARK_LOG_LEVEL", help_heading = LOGS)]
    pub log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where every command's help has what they share, behind its own options.
const LOGS: &str = "Logs";

/// What the operator can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile EmbeddingModels until SIGTERM.
    Run(Box<Run>),
    /// Work with the CustomResourceDefinitions.
    #[command(subcommand)]
    Crds(Crds),
    /// Look at a cluster and say what is not as it should be, and what to do about it.
    Check(Check),
}

/// Reconcile EmbeddingModels until SIGTERM.
///
/// The cluster is that of the pod's service account, or of the kubeconfig. Any number of replicas may run: one leads.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The image of the pods that serve models, unless a model names its own.
    #[arg(long, value_name = "IMAGE", env = "EMBARK_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// The namespace of the Lease that replicas elect their leader by: the operator's own.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The namespaces whose models are served, separated by commas. By default those of every namespace.
    #[arg(long, value_name = "NAMESPACES", env = "EMBARK_WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,
    /// The name of that Lease. Two operators of one namespace, each with namespaces of its own to watch, have two.
    #[arg(long, value_name = "NAME", default_value = LEASE, value_parser = object_name)]
    pub lease_name: String,
    /// What this replica calls itself in the Lease: the pod's name, or the host's with a number of its own.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value_t = own_name(), hide_default_value = true)]
    pub identity: String,
    /// Where probes and metrics are served. `[::]` is every address, of IPv4 too. Port 0 takes a free one; the log says which.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
    pub listen: SocketAddr,
    /// How pods are given a sidecar.
    #[command(flatten)]
    pub webhook: Webhook,
}

/// What can be done with the CustomResourceDefinitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Crds {
    /// Write them to standard output as YAML, for kubectl apply --server-side -f -
    Print,
    /// Apply them to the cluster, and wait until it serves them.
    Apply,
}

/// A namespace's name is a DNS label.
fn namespace(text: &str) -> Result<String, String> {
    if text.len() <= 63 && is_label(text) {
        return Ok(text.to_owned());
    }
    Err("must be the name of a namespace: at most 63 of a to z, 0 to 9 and -, which is neither first nor last".to_owned())
}

/// The name of an object is a DNS subdomain.
fn object_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("must be the name of an object: at most 253 of a to z, 0 to 9, - and ., which begins and ends with a letter or digit".to_owned())
}

/// Whether a text is made as a DNS label is, of whatever length.
fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// What no other process is called: whoever finds its own name in the Lease leads, so that two of one name would both. A pod's
/// name needs no number: it is given once, and a container that is started again takes its Lease back without a wait.
fn own_name() -> String {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or(LEASE);
        // Its keys are random.
        let number = RandomState::new().build_hasher().finish();
        format!("{host}-{number:016x}")
    });
    NAME.clone()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn namespaces_are_names() {
        let parse = |namespaces: &str| {
            let watch = format!("--watch-namespaces={namespaces}");
            let all = ["embark-operator", "run", "--sidecar-image=x", &watch];
            Arguments::try_parse_from(all)
        };
        let Command::Run(run) = parse("a,b-2").unwrap().command else { panic!("it is run") };
        assert_eq!(run.watch_namespaces, ["a", "b-2"]);
        for wrong in ["a,", "A", "-a", "a b", "a/b"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("--watch-namespaces") && error.contains("a to z"), "{error}");
        }
    }

    #[test]
    fn leases_have_names_of_objects() {
        let parse = |name: &str| {
            let lease = format!("--lease-name={name}");
            Arguments::try_parse_from(["embark-operator", "run", "--sidecar-image=x", &lease])
        };
        let Command::Run(run) = parse("a.b-2").unwrap().command else { panic!("it is run") };
        assert_eq!(run.lease_name, "a.b-2");
        for wrong in ["", "A", "-a", "a..b", "a/b", &"a".repeat(254)] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(
                error.contains("--lease-name") && error.contains("name of an object"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_process_without_a_pods_name_is_called_as_no_other_is() {
        let name = own_name();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let number = name.strip_prefix(host.trim()).unwrap().strip_prefix('-').unwrap();
        assert!(number.len() == 16 && number.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
        assert_eq!(name, own_name());
    }

    #[test]
    fn anything_unknown_is_refused() {
        for arguments in
            [&["walk"][..], &["crds", "delete"], &["crds", "print", "more"], &["--port"]]
        {
            let all = ["embark-operator"].iter().chain(arguments);
            assert!(Arguments::try_parse_from(all).unwrap_err().use_stderr(), "{arguments:?}");
        }
        let error = Arguments::try_parse_from(["embark-operator", "--version"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
    }
}
