//! The chart as Helm has it. What it installs is seen on a node.

use std::{collections::BTreeSet, fs};

use clap::Parser as _;
use embark_operator::{
    args::{Arguments, Command},
    check::{
        self,
        rights::{CERTIFICATES, NEEDED, Need, WEBHOOK},
    },
};
use embark_tests::{
    cluster::ControlPlane,
    programs,
    rights::{self, Place, Right},
};
use serde_json::Value;

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

#[test]
fn every_value_is_in_the_schema_and_in_the_table_of_the_charts_readme() {
    let chart = programs::root().join("charts/embark");
    let read = |file: &str| fs::read_to_string(chart.join(file)).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    // That values.yaml has nothing else is for Helm to say.
    let mut allowed = properties(&schema);
    // Helm's own, for charts that have this one among theirs.
    assert!(allowed.remove("global"));
    for path in &allowed {
        let value = values.pointer(&format!("/{}", path.replace('.', "/")));
        assert!(value.is_some(), "values.yaml has no {path}, which the schema has");
    }
    let readme = read("README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row.split(" | ").next().unwrap().split('`').skip(1).step_by(2));
    let told: BTreeSet<String> = names.map(str::to_owned).collect();
    assert_eq!(told, allowed, "README's table on the left, values.schema.json on the right");
}

/// Where a schema has its leaves, with dots between.
fn properties(schema: &Value) -> BTreeSet<String> {
    let parts = schema["properties"].as_object().into_iter().flatten();
    let below = parts.flat_map(|(name, part)| match properties(part) {
        below if below.is_empty() => BTreeSet::from([name.clone()]),
        below => below.iter().map(|path| format!("{name}.{path}")).collect(),
    });
    below.collect()
}

#[tokio::test]
async fn rights_that_check_looks_at_are_those_of_the_chart() {
    let by_cert_manager = "--set=webhook.certManager.enabled=true";
    for (argument, needs) in [
        ("--set=webhook.enabled=false", vec![NEEDED]),
        (by_cert_manager, vec![NEEDED, WEBHOOK]),
        ("--set=webhook.enabled=true", vec![NEEDED, WEBHOOK, CERTIFICATES]),
    ] {
        compare_rights(argument, &needs.concat()).await;
    }
}

async fn compare_rights(argument: &str, needs: &[Need]) {
    let mut helm = ControlPlane::shared().await.command("helm");
    helm.args(["template", "embark", "--namespace", "system", argument]);
    helm.arg(programs::root().join("charts/embark"));
    let rendered = programs::run(helm, b"").await;
    assert_eq!(rendered.code, 0, "{}", rendered.errors);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered.output).unwrap();
    let granted = rights::granted(&objects, ("system", "embark"));
    let needed: BTreeSet<Right> = needs.iter().flat_map(of_need).collect();
    let texts = |rights: &BTreeSet<Right>| rights.iter().map(Right::to_string).collect::<Vec<_>>();
    assert_eq!(
        texts(&needed),
        texts(&granted),
        "operator/src/check/rights.rs and the chart's roles, {argument}"
    );
}

fn of_need(need: &Need) -> Vec<Right> {
    let (place, name) = match need.place {
        check::rights::Place::Everywhere => (Place::Everywhere, None),
        check::rights::Place::Named(name) => (Place::Everywhere, Some(name.to_owned())),
        check::rights::Place::Own => (Place::Own, None),
        check::rights::Place::Lease => (Place::Own, Some("embark-operator".to_owned())),
        check::rights::Place::Secret => (Place::Own, Some("embark-webhook".to_owned())),
        check::rights::Place::Configuration => {
            (Place::Everywhere, Some("embark-system-injection".to_owned()))
        }
    };
    let of_verb = |verb: &&str| Right {
        verb: (*verb).to_owned(),
        group: need.group.to_owned(),
        resource: need.resource.to_owned(),
        name: name.clone(),
        place,
    };
    need.verbs.iter().map(of_verb).collect()
}

#[tokio::test]
async fn arguments_of_the_chart_are_the_binarys_and_ports_agree() {
    let mut helm = ControlPlane::shared().await.command("helm");
    helm.args(["template", "embark", "--show-only=templates/deployment.yaml"]);
    helm.arg(programs::root().join("charts/embark"));
    let rendered = programs::run(helm, b"").await;
    let deployment: Value = serde_saphyr::from_str(&rendered.output).unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    let arguments: Vec<&str> = std::iter::once("embark-operator").chain(arguments).collect();
    let parsed = Arguments::try_parse_from(&arguments);
    let Command::Run(run) = parsed.unwrap_or_else(|error| panic!("{error}")).command else {
        panic!("{arguments:?}");
    };
    let ports = container["ports"].as_array().unwrap();
    let admin = ports.iter().find(|port| port["name"] == "admin").unwrap();
    assert_eq!(admin["containerPort"], run.listen.port());
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{probe}");
    }
}
