//! The chart as Helm has it. What it installs is seen on a node.

use std::fs;

use embark_tests::{cluster::ControlPlane, programs};

#[tokio::test]
async fn chart_has_no_fault_that_helm_finds() {
    let chart = programs::root().join("charts/embark");
    for arguments in [&["lint", "--strict"][..], &["template", "release", "--debug"]] {
        let mut helm = ControlPlane::shared().await.command("helm");
        helm.args(arguments).arg(&chart);
        let found = programs::run(helm, b"").await;
        assert_eq!(found.code, 0, "{}{}", found.output, found.errors);
    }
}

#[tokio::test]
async fn chart_renders_as_its_tests_say() {
    let mut unittest = ControlPlane::shared().await.command("helm-unittest");
    unittest.args(["--strict", "--color=false"]).arg(programs::root().join("charts/embark"));
    let found = programs::run(unittest, b"").await;
    assert_eq!(found.code, 0, "{}{}", found.output, found.errors);
}

#[test]
fn chart_is_of_this_version_and_brings_this_definition() {
    let chart = programs::root().join("charts/embark");
    let text = fs::read_to_string(chart.join("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
    }
    let definition = chart.join("files/crds/embeddingmodels.embark.dev.yaml");
    // A link, so that there is one truth.
    assert!(definition.symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read_to_string(definition).unwrap(), embark_crds::crd::crd_yaml());
}
