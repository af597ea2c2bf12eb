//! What ServiceAccounts asked of a cluster's API server, by its own audit log. EMBARK_TEST_REQUESTS names a folder where it
//! stays when the cluster is gone, for the test that compares it with the chart's roles.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::state::{self, State};
use crate::sidecar::until;

/// Names the folder.
const FOLDER: &str = "EMBARK_TEST_REQUESTS";
/// In a state folder: the log, what it is kept of, and where to.
const AUDIT: &str = "audit";
/// What an API server says to who has no right, wherever it finds that.
const NO_RIGHT: &str = "User \"system:serviceaccount:";

/// What an account asked for. Requests that differ in nothing of it are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request {
    /// The account: `NAMESPACE:NAME`.
    pub account: String,
    /// As rules of roles have it: `get`, `create`, `watch`.
    pub verb: String,
    /// The API group; empty: the core.
    pub group: String,
    /// The plural, with the subresource behind a slash.
    pub resource: String,
    /// The object's namespace; none: of the cluster, or of all namespaces.
    pub namespace: Option<String>,
    /// The object; none: of more than one.
    pub name: Option<String>,
    /// The API server's sentence, when the account had no right to it.
    pub refused: Option<String>,
}

/// A line of the log, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    object_ref: Option<Object>,
    response_status: Option<Answer>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    code: u16,
    message: String,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: Option<String>,
}

// === impl Event ===

impl Event {
    /// What it was a request for. To apply an object that was not there takes the right to create it too.
    fn requests(self) -> Vec<Request> {
        let Some(account) = self.user.username.strip_prefix("system:serviceaccount:") else {
            return Vec::new();
        };
        let (Some(object), answer) = (self.object_ref, self.response_status.unwrap_or_default())
        else {
            return Vec::new();
        };
        let is_refused = self.annotations.decision.as_deref() == Some("forbid")
            || answer.code == 403 && answer.message.contains(NO_RIGHT);
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            part => format!("{}/{part}", object.resource),
        };
        let request = Request {
            account: account.to_owned(),
            verb: self.verb,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            refused: is_refused.then_some(answer.message),
        };
        let has_created = request.verb == "patch" && answer.code == 201;
        let created = has_created.then(|| Request { verb: "create".into(), ..request.clone() });
        created.into_iter().chain([request]).collect()
    }
}

// === free functions ===

/// Makes room for the log, and notes where it stays.
pub(super) fn prepare(state: &State) -> anyhow::Result<()> {
    fs::create_dir_all(state.path(AUDIT))?;
    if let Some(folder) = std::env::var_os(FOLDER) {
        fs::write(state.path(AUDIT).join("for"), folder.as_encoded_bytes())?;
    }
    Ok(())
}

/// The file that says what is logged: who asked for what, of accounts that are not the cluster's own.
pub(super) fn policy(state: &State) -> anyhow::Result<PathBuf> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    });
    let path = state.path(AUDIT).join("policy.json");
    fs::write(&path, policy.to_string())?;
    Ok(path)
}

/// Where the API server logs.
pub(super) fn log(state: &State) -> PathBuf {
    state.path(AUDIT).join("requests.log")
}

/// Keeps the requests of a cluster that has ended.
pub(super) fn keep(state: &State) -> anyhow::Result<()> {
    let Some(folder) = kept_in(state.folder()).filter(|folder| folder.is_dir()) else {
        return Ok(());
    };
    let name = state.folder().file_name().context("a state folder has a name")?;
    // Ids of processes come back: another cluster may have had this name.
    let mut file = File::options().create(true).append(true).open(folder.join(name))?;
    for request in logged(state.folder())? {
        writeln!(file, "{}", serde_json::to_string(&request)?)?;
    }
    Ok(())
}

/// The requests of all clusters that were to be kept in this folder, once each of them has ended.
///
/// # Errors
/// A file cannot be read.
pub async fn collect(folder: &Path) -> anyhow::Result<BTreeSet<Request>> {
    let ours = || {
        let states = fs::read_dir(state::root()).into_iter().flatten().flatten();
        let states = states.map(|state| state.path());
        states.filter(|state| kept_in(state).as_deref() == Some(folder)).collect::<Vec<_>>()
    };
    until("every cluster has ended", async || {
        ours().iter().all(|state| state::is_abandoned(state))
    })
    .await;
    let mut requests = BTreeSet::new();
    // What was killed with its guard is still there.
    for state in ours() {
        requests.extend(logged(&state)?);
    }
    for file in fs::read_dir(folder)? {
        for line in fs::read_to_string(file?.path())?.lines() {
            requests.insert(serde_json::from_str(line)?);
        }
    }
    Ok(requests)
}

fn kept_in(state: &Path) -> Option<PathBuf> {
    fs::read_to_string(state.join(AUDIT).join("for")).ok().map(PathBuf::from)
}

/// The requests in a state folder.
fn logged(state: &Path) -> anyhow::Result<BTreeSet<Request>> {
    let mut requests = BTreeSet::new();
    // Logs that were rotated stand beside the last.
    for entry in fs::read_dir(state.join(AUDIT)).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "log") {
            let lines = BufReader::new(File::open(path)?).lines();
            requests.extend(lines.map_while(Result::ok).flat_map(|line| parse(&line)));
        }
    }
    Ok(requests)
}

/// What a line tells of: nothing, when the API server was killed while it wrote.
fn parse(line: &str) -> Vec<Request> {
    serde_json::from_str::<Event>(line).map(Event::requests).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, code: u16, message: &str, decision: &str) -> String {
        json!({
            "kind": "Event", "stage": "ResponseComplete", "verb": verb, "level": "Metadata",
            "user": {"username": "system:serviceaccount:one:embark", "groups": ["a"]},
            "objectRef": {
                "resource": "embeddingmodels", "subresource": "status", "namespace": "two",
                "name": "m", "apiGroup": "embark.dev", "apiVersion": "v1alpha1",
            },
            "responseStatus": {"metadata": {}, "code": code, "message": message},
            "annotations": {"authorization.k8s.io/decision": decision},
        })
        .to_string()
    }

    fn verbs(line: &str) -> Vec<(String, bool)> {
        let requests = parse(line).into_iter();
        requests.map(|request| (request.verb, request.refused.is_some())).collect()
    }

    #[test]
    fn a_line_is_what_an_account_asked_for() {
        let request = parse(&line("get", 200, "", "allow")).remove(0);
        assert_eq!(request.account, "one:embark");
        assert_eq!((&*request.group, &*request.resource), ("embark.dev", "embeddingmodels/status"));
        assert_eq!(
            (request.namespace.as_deref(), request.name.as_deref()),
            (Some("two"), Some("m"))
        );
        assert_eq!(request.refused, None);
    }

    #[test]
    fn an_apply_that_made_something_took_two_rights() {
        let made = verbs(&line("patch", 201, "", "allow"));
        assert_eq!(made, [("create".to_owned(), false), ("patch".to_owned(), false)]);
        assert_eq!(verbs(&line("patch", 200, "", "allow")), [("patch".to_owned(), false)]);
    }

    #[test]
    fn want_of_a_right_is_told_from_other_refusals() {
        let no_right =
            r#"x "m" is forbidden: User "system:serviceaccount:one:embark" cannot create"#;
        for (line, is_refused) in [
            (line("get", 403, no_right, "forbid"), true),
            (line("patch", 403, no_right, "allow"), true),
            (
                line("patch", 403, "m is forbidden: its namespace is being terminated", "allow"),
                false,
            ),
            (line("patch", 409, "the object has been modified", "allow"), false),
        ] {
            let verbs = verbs(&line);
            assert!(verbs.iter().all(|(_, refused)| *refused == is_refused), "{line}");
        }
    }

    #[test]
    fn users_and_half_lines_are_no_requests() {
        let whole = line("get", 200, "", "allow");
        let user = whole.replace("system:serviceaccount:one:embark", "kubernetes-admin");
        for line in [&user, &whole[..whole.len() / 2], "", r#"{"verb": "get"}"#] {
            assert_eq!(parse(line), [], "{line}");
        }
    }
}
