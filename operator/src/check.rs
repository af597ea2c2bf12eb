//! Looks at a cluster, and says what is not as it should be and what to do about it. It writes nothing, and each look ends in
//! time, whatever the cluster does.

mod cluster;
mod definition;
mod installed;
mod lead;
mod models;
pub mod rights;
mod webhook;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use kube::Client;
use serde::Serialize;
use tokio::time::timeout;

use self::installed::Installed;
use crate::{
    args::{Check, Output},
    kube_ext::{chain, is_forbidden},
};

/// How long the cluster may take to answer at all.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// How long each look may take. They go on side by side.
const LOOK_WITHIN: Duration = Duration::from_secs(20);
/// The most characters of what somebody else says in a finding.
const WORDS: usize = 300;

/// How the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing keeps models from being served.
    Well,
    /// Something does.
    Failed,
    /// There is no cluster to look at.
    NoCluster,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    check: &'static str,
    level: Level,
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Neither good nor bad.
    Info,
    /// Something will be missed.
    Warning,
    Failed,
}

/// What every look works with.
struct Looker {
    client: Client,
    arguments: Check,
    installed: Installed,
}

// === impl Verdict ===

impl Verdict {
    /// The code that a process ends with.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Well => 0,
            Verdict::Failed => 1,
            Verdict::NoCluster => 2,
        }
    }
}

// === impl Level ===

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Failed => "FAILED",
        }
    }
}

// === impl Finding ===

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Finding { check, level: Level::Ok, message: message.into(), todo: None }
    }

    fn info(check: &'static str, message: impl Into<String>) -> Self {
        Finding { check, level: Level::Info, message: message.into(), todo: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, todo: impl Into<String>) -> Self {
        Finding { check, level: Level::Warning, message: message.into(), todo: Some(todo.into()) }
    }

    fn failed(check: &'static str, message: impl Into<String>, todo: impl Into<String>) -> Self {
        Finding { check, level: Level::Failed, message: message.into(), todo: Some(todo.into()) }
    }

    /// The cluster does not say. Whoever may not look knows nothing; what cannot be answered is a failure.
    fn unseen(check: &'static str, what: &str, error: &kube::Error) -> Self {
        let why = words(&chain(error));
        let message = format!("{what} could not be looked at: {why}");
        if is_forbidden(error) {
            Finding::warning(check, message, "run this as somebody who may")
        } else {
            Finding::failed(check, message, "see why the API server does not answer")
        }
    }
}

// === free functions ===

/// Looks at the cluster of the kubeconfig, or of the pod, and writes what it found to standard output.
///
/// # Errors
/// Standard output takes nothing.
pub async fn run(arguments: &Check) -> io::Result<Verdict> {
    let (verdict, findings) = look(arguments).await;
    let text = match arguments.output {
        Output::Text => text(&findings),
        Output::Json => json(verdict, &findings),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(verdict),
        written => written.map(|()| verdict),
    }
}

async fn look(arguments: &Check) -> (Verdict, Vec<Finding>) {
    let no_cluster = |message: String| {
        let todo =
            "name a cluster that answers: by KUBECONFIG, or by running this in one of its pods";
        (Verdict::NoCluster, vec![Finding::failed("cluster", message, todo)])
    };
    let client = match crate::app::connect().await {
        Ok(client) => client,
        Err(error) => return no_cluster(words(&chain(&error))),
    };
    let version = timeout(FIRST_WITHIN, client.apiserver_version());
    let (version, installed) = tokio::join!(version, Installed::find(&client, arguments));
    let version = match version {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            return no_cluster(format!(
                "the API server does not answer: {}",
                words(&chain(&error))
            ));
        }
        Err(_) => {
            return no_cluster(format!("the API server does not answer within {FIRST_WITHIN:?}"));
        }
    };
    let looker = Looker { client, arguments: arguments.clone(), installed };
    let mut findings = vec![cluster::version(&version)];
    let looks: [(&'static str, BoxFuture<'_, Vec<Finding>>); 6] = [
        ("definition", definition::look(&looker).boxed()),
        ("operator", lead::look(&looker).boxed()),
        ("rights", rights::look(&looker).boxed()),
        ("webhook", webhook::look(&looker).boxed()),
        ("apis", cluster::apis(&looker).boxed()),
        ("models", models::look(&looker).boxed()),
    ];
    let bounded = looks.map(async |(check, look)| {
        timeout(LOOK_WITHIN, look).await.unwrap_or_else(|_| {
            let message = format!("the cluster did not answer within {LOOK_WITHIN:?}");
            vec![Finding::failed(check, message, "see why the API server is slow, and look again")]
        })
    });
    findings.extend(join_all(bounded).await.into_iter().flatten());
    let has_failed = findings.iter().any(|finding| finding.level == Level::Failed);
    (if has_failed { Verdict::Failed } else { Verdict::Well }, findings)
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, level, message, todo } in findings {
        text += &format!("{:<8} {check:<11} {message}\n", level.word());
        if let Some(todo) = todo {
            text += &format!("{:<20} -> {todo}\n", "");
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    text + &format!("{} failed, {} warnings\n", count(Level::Failed), count(Level::Warning))
}

fn json(verdict: Verdict, findings: &[Finding]) -> String {
    serde_json::json!({ "well": verdict == Verdict::Well, "findings": findings }).to_string() + "\n"
}

/// What somebody else says: one line, and no longer than anybody reads.
fn words(said: &str) -> String {
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_for_people_and_one_object_for_machines() {
        let findings = [
            Finding::ok("cluster", "Kubernetes 1.36"),
            Finding::failed("definition", "there is none", "embark-operator crds apply"),
        ];
        let expected = "ok       cluster     Kubernetes 1.36\n\
                        FAILED   definition  there is none\n                     \
                        -> embark-operator crds apply\n1 failed, 0 warnings\n";
        assert_eq!(text(&findings), expected);
        let json: serde_json::Value =
            serde_json::from_str(&json(Verdict::Failed, &findings)).unwrap();
        assert_eq!(json["well"], false);
        assert_eq!(json["findings"][1]["todo"], "embark-operator crds apply");
        assert_eq!(json["findings"][0]["level"], "ok");
    }

    #[test]
    fn what_others_say_is_one_line_of_a_bounded_length() {
        assert_eq!(words("a\nb\u{1b}c"), "a b c");
        assert_eq!(words(&"ä".repeat(1000)).chars().count(), WORDS + 1);
    }
}
