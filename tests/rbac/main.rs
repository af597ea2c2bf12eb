//! The operator's rights are least: what it asked of API servers in the tests before this one, and what the chart grants,
//! are the same. `tests/run` runs it last, with the folder that EMBARK_TEST_REQUESTS names.

#![cfg(test)]

use std::{collections::BTreeSet, process::Command};

use embark_tests::{
    cluster::{self, requests},
    programs,
    rights::{self, Difference, Right},
};
use serde_json::Value;

/// The service account that the chart makes for a release of this name.
const ACCOUNT: &str = "embark";
/// Where the chart is rendered for.
const NAMESPACE: &str = "system";
/// Values that are no switches, and decide rules of roles.
const MORE_VALUES: [&str; 1] = ["watchNamespaces={a,b}"];
/// Values that go together with no others' defaults, so that the chart refuses them. All others have to render.
const REFUSED: [&str; 0] = [];
/// Rights, as [`Right`] is displayed, that no test can use, and why the operator has them.
const UNUSED: [(&str, &str); 0] = [];

#[tokio::test]
async fn operator_uses_every_right_that_the_chart_gives_it_and_needs_no_other() {
    let requests = requests::collect(&programs::from_environment("EMBARK_TEST_REQUESTS")).await;
    let mut requests = requests.expect("what was kept can be read");
    requests.retain(|request| request.account.ends_with(&format!(":{ACCOUNT}")));
    let requests: BTreeSet<_> = requests.into_iter().map(of_rendered).collect();
    assert!(!requests.is_empty(), "no operator asked for anything: no cluster's tests ran before");
    let mut rights = BTreeSet::new();
    for values in combinations() {
        rights.extend(rendered(&values));
    }
    let excused = |right: &Right| UNUSED.iter().any(|(text, _)| *text == right.to_string());
    for (text, reason) in UNUSED {
        assert!(rights.iter().any(|r| r.to_string() == text), "no role grants {text}: {reason}");
    }
    let mut found = rights::difference(&rights, &requests);
    found.unused.retain(|right| !excused(right));
    assert_eq!(found, Difference::default(), "{}", told(&found));
}

/// A request as a release in [`NAMESPACE`] would make it: names of what is of the whole cluster have the release's namespace
/// in them.
fn of_rendered(mut request: requests::Request) -> requests::Request {
    let own = request.account.split(':').next().unwrap_or_default();
    let named = |name: String| name.replace(&format!("-{own}-"), &format!("-{NAMESPACE}-"));
    if request.namespace.is_none() {
        request.name = request.name.map(named);
    }
    request
}

/// Sets of values that together bring out every rule: the switches of the chart's values, flipped one by one and all at
/// once.
fn combinations() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(programs::root().join("charts/embark/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut switches = Vec::new();
    flip(&values, "", &mut switches);
    assert!(!switches.is_empty(), "the chart has no switches");
    let on = switches.iter().filter(|switch| switch.ends_with("=true")).cloned().collect();
    let more = MORE_VALUES.map(|values| vec![values.to_owned()]);
    let each = switches.iter().map(|switch| vec![switch.clone()]);
    [Vec::new(), on].into_iter().chain(each).chain(more).collect()
}

/// Each boolean as the other one, as `--set` takes it.
fn flip(values: &Value, path: &str, switches: &mut Vec<String>) {
    for (name, value) in values.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::Bool(is_on) => switches.push(format!("{path}={}", !is_on)),
            value => flip(value, &path, switches),
        }
    }
}

/// What the chart grants with these values: nothing with those that it is known to refuse.
fn rendered(values: &[String]) -> BTreeSet<Right> {
    let mut helm = Command::new(cluster::program("helm").unwrap());
    helm.args(["template", ACCOUNT, "--namespace", NAMESPACE]);
    helm.arg(programs::root().join("charts/embark"));
    for value in values {
        helm.args(["--set", value]);
    }
    let output = helm.output().expect("helm runs");
    let is_refused = values.iter().any(|value| REFUSED.contains(&value.as_str()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), !is_refused, "{values:?}: {errors}");
    if is_refused {
        return BTreeSet::new();
    }
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(str::from_utf8(&output.stdout).unwrap()).unwrap();
    rights::granted(&objects, (NAMESPACE, ACCOUNT))
}

fn told(found: &Difference) -> String {
    let mut lines = BTreeSet::new();
    for request in &found.refused {
        let requests::Request { account, verb, resource, refused, .. } = request;
        lines.insert(format!(
            "{account} was refused {verb} {resource}: {}",
            refused.as_deref().unwrap_or_default()
        ));
    }
    for requests::Request { account, verb, group, resource, namespace, .. } in &found.uncovered {
        let namespace = namespace.as_deref().unwrap_or("the cluster");
        lines.insert(format!(
            "no rule of the chart is for {verb} {resource} of {group:?}, which {account} did in {namespace}"
        ));
    }
    for right in &found.unused {
        lines.insert(format!("never used: {right}"));
    }
    lines.into_iter().collect::<Vec<_>>().join("\n")
}
