//! What people run: clients of a server, and checks of files. Results go to standard output, everything else to standard
//! error.

pub mod bench;
pub mod check;
pub mod embed;
pub mod invalidate;
pub mod mean;
pub mod self_test;

use std::{fmt, io, process::ExitCode};

/// Why a command ended without success, as a sentence for people.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// What was asked is wrong: arguments or manifests. Exit code 2.
    Usage(String),
    /// It was right and failed. Exit code 1.
    Run(String),
}

// === impl Failure ===

impl Failure {
    /// 2 for what the caller has to mend, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Run(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(sentence) | Failure::Run(sentence) => {
                // A sentence of several lines is a list, and stands as it is.
                write!(f, "{}{sentence}", if sentence.contains('\n') { "" } else { "error: " })
            }
        }
    }
}

// === free functions ===

/// Whether the reader of standard output still reads: one who has enough, as `head` does, is no failure.
fn read_on(printed: io::Result<()>) -> Result<bool, Failure> {
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Run(format!("standard output: {error}"))),
    }
}
