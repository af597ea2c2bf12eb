//! Numbers that have no target.

use std::io::{Write as _, stdout};

/// Prints a number that stands beside the ratios.
pub(crate) fn value(name: &str, value: f64) {
    writeln!(stdout().lock(), "value {name} {value:.3}").expect("there is a terminal or a file");
}
