//! The commands of documents, for the tests that run them.

use std::fs;

use crate::programs;

/// The heading under which README's commands need a cluster.
pub const IN_A_CLUSTER: &str = "## In a cluster";

/// A command of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The heading that it stands under.
    pub heading: String,
    /// The line.
    pub line: String,
}

/// The lines of a document's ```sh fences.
pub fn commands(document: &str) -> Vec<Command> {
    let text = fs::read_to_string(programs::root().join(document)).expect("the document is there");
    let mut commands = Vec::new();
    let (mut heading, mut inside) = (String::new(), false);
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                commands.push(Command { heading: heading.clone(), line: line.to_owned() });
            }
            line if line.starts_with('#') => line.clone_into(&mut heading),
            _ => {}
        }
    }
    commands
}
