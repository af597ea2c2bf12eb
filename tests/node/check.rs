//! What `embark-operator check` says of a cluster where all of it is installed.

use embark_tests::{cluster::Node, programs, release::Release, sidecar::until};
use serde_json::Value;

/// What is looked at, and a part of what is well about it.
const WELL: [(&str, &str); 5] = [
    ("definition", "the one of this version"),
    ("operator", "leads"),
    ("rights", "has all"),
    ("webhook", "it answers for pods"),
    ("metrics-api", "served"),
];

#[tokio::test]
async fn check_finds_nothing_wrong_with_what_the_chart_installs() {
    Release::shared().await;
    // Another test may have restarted the operator just now.
    until("all is well", async || {
        let findings = findings().await;
        println!("{findings:?}");
        let is_well = |(check, part): (&str, &str)| {
            findings.iter().any(|finding| {
                let message = finding["message"].as_str().unwrap();
                finding["check"] == check && finding["level"] == "ok" && message.contains(part)
            })
        };
        WELL.into_iter().all(is_well) && findings.iter().all(|finding| finding["level"] != "failed")
    })
    .await;
}

/// All but what is said of models, which are other tests'.
async fn findings() -> Vec<Value> {
    let mut operator = Node::shared().await.command(programs::operator());
    operator.args(["check", "--output=json", "--service-account=embark/embark"]);
    let checked = programs::run(operator, b"").await;
    let mut findings: Value = serde_json::from_str(&checked.output)
        .unwrap_or_else(|error| panic!("{error}: {}{}", checked.output, checked.errors));
    let findings: Vec<Value> = serde_json::from_value(findings["findings"].take()).unwrap();
    findings.into_iter().filter(|finding| finding["check"] != "models").collect()
}
