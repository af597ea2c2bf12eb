//! The command line.

use clap::{Parser, Subcommand};

/// The embark operator: reconciles EmbeddingModels.
#[derive(Debug, Parser)]
#[command(name = "embark-operator", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Works with the CustomResourceDefinitions
    #[command(subcommand)]
    Crds(Crds),
}

/// What can be done with the CustomResourceDefinitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Crds {
    /// Writes them to standard output as YAML, for kubectl apply -f -
    Print,
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
    fn anything_unknown_is_refused() {
        for arguments in [&["run"][..], &["crds", "apply"], &["crds", "print", "more"], &["--port"]]
        {
            let all = ["embark-operator"].iter().chain(arguments);
            assert!(Arguments::try_parse_from(all).unwrap_err().use_stderr(), "{arguments:?}");
        }
        let error = Arguments::try_parse_from(["embark-operator", "--version"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
    }
}
