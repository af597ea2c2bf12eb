//! `embark-operator check`: what it says of clusters, and the code that it ends with.

use std::path::Path;

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    injection::Injection,
    operator::apply_definition,
    programs::{self, Finished},
    sidecar::until,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::operator::{apply_quickstart, condition, start};

#[tokio::test]
async fn check_says_that_all_is_well_and_which_models_are_not_ready() {
    let (namespace, alone) = start("check").await;
    apply_quickstart(&namespace).await;
    until("the model was looked at", async || {
        condition(&namespace, "Ready").await["reason"] == "RollingOut"
    })
    .await;
    let account = format!("--service-account={}/embark", namespace.name());
    let (code, findings) = check(&namespace, &[&account]).await;
    assert_eq!(code, 0, "{findings}");
    for (check, level, part) in [
        ("cluster", "ok", "Kubernetes 1."),
        ("definition", "ok", "the one of this version"),
        ("operator", "info", "no Deployment of it"),
        ("operator", "ok", "operator leads"),
        ("rights", "ok", "has all"),
        ("webhook", "info", "not installed: no MutatingWebhookConfiguration of the chart's labels"),
        ("metrics-api", "warning", "not served"),
        ("models", "warning", "/quickstart is not ready: RollingOut"),
    ] {
        assert!(has(&findings, (check, level, part)), "{check} {level} {part}: {findings}");
    }
    let people = run(&namespace, &[], None).await;
    assert_eq!(people.code, 0, "{}{}", people.output, people.errors);
    assert!(people.output.ends_with(" warnings\n"), "{}", people.output);
    let todo = format!(" -> kubectl describe embm quickstart --namespace {}\n", namespace.name());
    assert!(people.output.contains(&todo), "{}", people.output);
    // Who runs it has rights of its own, and it says whose it looked at.
    assert!(people.output.contains("has all ") && people.output.contains("--service-account"));
    alone.stop().await;
}

#[tokio::test]
async fn check_tells_a_lease_that_nobody_renews_from_one_that_there_never_was() {
    let (namespace, alone) = start("check-lease").await;
    alone.operator.wait_for_line("\"leading\"").await;
    alone.stop().await;
    let (code, findings) = check(&namespace, &[]).await;
    assert_eq!(code, 1, "{findings}");
    assert!(has(&findings, ("operator", "failed", "nobody holds Lease")), "{findings}");
    // As one that was killed leaves it.
    let dead = json!({"spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15}}).to_string();
    namespace
        .kubectl(["patch", "lease", "embark-operator", "--type=merge", "--patch", &dead])
        .await;
    let (code, findings) = check(&namespace, &[]).await;
    assert_eq!(code, 1, "{findings}");
    assert!(has(&findings, ("operator", "failed", "dead has not renewed")), "{findings}");
    let elsewhere = namespace.plane().namespace("check-none").await;
    let (code, findings) = check(&elsewhere, &[]).await;
    assert_eq!(code, 1, "{findings}");
    assert!(has(&findings, ("operator", "failed", "no operator has ever led")), "{findings}");
}

#[tokio::test]
async fn check_names_each_right_that_the_operators_account_lacks() {
    let plane = ControlPlane::shared().await;
    apply_definition(plane).await;
    let namespace = plane.namespace("check-rights").await;
    namespace.kubectl(["create", "serviceaccount", "bare"]).await;
    let account = format!("--service-account={}/bare", namespace.name());
    let (code, findings) = check(&namespace, &[&account]).await;
    assert_eq!(code, 1, "{findings}");
    let lacks = format!(
        "{}/bare may not list embeddingmodels.embark.dev in every namespace",
        namespace.name()
    );
    assert!(has(&findings, ("rights", "failed", &lacks)), "{findings}");
    // As that account itself, which may not look at all of it either.
    let kubeconfig = plane.service_account_kubeconfig(namespace.name(), "bare").await;
    let own = run(&namespace, &[], Some(&kubeconfig)).await;
    assert_eq!(own.code, 1, "{}{}", own.output, own.errors);
    assert!(own.output.contains("may not list embeddingmodels.embark.dev"), "{}", own.output);
    assert!(own.output.contains("run this as somebody who may"), "{}", own.output);
}

#[tokio::test]
async fn check_says_of_a_definition_whether_it_is_missing_older_or_edited() {
    // Of this test's own: others need the definition.
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("check-crd").await;
    let (code, findings) = check(&namespace, &[]).await;
    assert_eq!(code, 1, "{findings}");
    let missing = ("definition", "failed", "embeddingmodels.embark.dev is not there");
    assert!(has(&findings, missing), "{findings}");
    assert!(findings["findings"].to_string().contains("embark-operator crds apply"), "{findings}");
    apply_definition(&plane).await;
    let api = Api::<CustomResourceDefinition>::all(plane.client().await);
    let name = "embeddingmodels.embark.dev";
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for (edit, level, part) in [
        (
            json!({"op": "remove", "path": format!("{spec}/pod/properties/priorityClassName")}),
            "failed",
            "it does not know spec.pod.priorityClassName",
        ),
        (
            json!({"op": "add", "path": format!("{spec}/later"), "value": {"type": "string"}}),
            "warning",
            "newer than this version: spec.later",
        ),
        (
            json!({"op": "replace", "path": format!("{spec}/replicas/description"), "value": "other"}),
            "warning",
            "or was edited",
        ),
    ] {
        let before = api.get(name).await.unwrap().spec;
        let patch: Patch<CustomResourceDefinition> =
            Patch::Json(serde_json::from_value(without_rules(&edit)).unwrap());
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
        let (_, findings) = check(&namespace, &[]).await;
        assert!(has(&findings, ("definition", level, part)), "{part}: {findings}");
        let whole = json!([{"op": "replace", "path": "/spec", "value": before}]);
        let patch: Patch<CustomResourceDefinition> =
            Patch::Json(serde_json::from_value(whole).unwrap());
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let (_, findings) = check(&namespace, &[]).await;
    assert!(has(&findings, ("definition", "ok", "the one of this version")), "{findings}");
    drop(namespace);
    plane.shut_down().await;
}

#[tokio::test]
async fn check_of_no_cluster_ends_with_a_code_of_its_own() {
    let namespace = ControlPlane::shared().await.namespace("check-away").await;
    let folder = tempfile::tempdir().unwrap();
    let away = folder.path().join("kubeconfig");
    let text = std::fs::read_to_string(namespace.plane().kubeconfig()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9".into();
    std::fs::write(&away, config.to_string()).unwrap();
    let found = run(&namespace, &["--output=json"], Some(&away)).await;
    assert_eq!(found.code, 2, "{}{}", found.output, found.errors);
    assert!(found.output.contains("the API server does not answer"), "{}", found.output);
    let none = run(&namespace, &[], Some(&folder.path().join("none"))).await;
    assert_eq!(none.code, 2, "{}{}", none.output, none.errors);
    assert!(none.output.contains("found no cluster"), "{}", none.output);
}

#[tokio::test]
async fn check_tells_a_webhook_that_answers_from_one_that_cannot_be_reached() {
    let namespace = ControlPlane::shared().await.restricted_namespace("check-webhook").await;
    let injection = Injection::start(&namespace, &[]).await;
    let account = format!("--service-account={}/embark", namespace.name());
    let tried = format!("--namespace={}", namespace.name());
    // The API server hears of who vouches a moment later.
    until("the webhook answers", async || {
        let (_, findings) = check(&namespace, &[&account, &tried]).await;
        has(&findings, ("webhook", "ok", "it answers"))
    })
    .await;
    let (code, findings) = check(&namespace, &[&account, &tried]).await;
    assert_eq!(code, 0, "{findings}");
    assert!(has(&findings, ("webhook", "ok", "inject.embark.dev: its caBundle")), "{findings}");
    assert!(has(&findings, ("rights", "ok", "has all")), "{findings}");
    // An account that lacks what the webhook needs.
    namespace.kubectl(["create", "serviceaccount", "bare"]).await;
    let bare = format!("--service-account={}/bare", namespace.name());
    let (_, findings) = check(&namespace, &[&bare, &tried]).await;
    assert!(has(&findings, ("rights", "failed", "more rights")), "{findings}");
    let Injection { alone, configuration } = injection;
    alone.stop().await;
    let (code, findings) = check(&namespace, &[&account, &tried]).await;
    assert_eq!(code, 1, "{findings}");
    assert!(has(&findings, ("webhook", "failed", "does not reach it")), "{findings}");
    namespace.kubectl(["delete", "mutatingwebhookconfiguration", &configuration]).await;
    let gone = format!("--webhook={configuration}");
    let (_, findings) = check(&namespace, &[&account, &gone]).await;
    let absent = format!("not installed: there is no MutatingWebhookConfiguration {configuration}");
    assert!(has(&findings, ("webhook", "info", &absent)), "{findings}");
}

#[tokio::test]
async fn check_of_some_namespaces_asks_for_no_right_in_others() {
    let plane = ControlPlane::shared().await;
    apply_definition(plane).await;
    let namespace = plane.namespace("check-some").await;
    let other = plane.namespace("check-other").await;
    let mut helm = plane.command("helm");
    helm.args(["template", "embark", "--namespace", namespace.name()]);
    helm.arg(format!("--set=webhook.enabled=false,watchNamespaces={{{}}}", namespace.name()));
    helm.args(["--show-only=templates/rbac.yaml", "--show-only=templates/service_account.yaml"]);
    helm.arg("--show-only=templates/deployment.yaml");
    helm.arg(programs::root().join("charts/embark"));
    let rendered = programs::run(helm, b"").await;
    assert_eq!(rendered.code, 0, "{}", rendered.errors);
    // No pod of it need ever run for this.
    let applied = plane.try_kubectl(["apply", "--filename", "-"], &rendered.output).await;
    assert_eq!(applied.code, 0, "{}", applied.errors);
    super::operator::apply_quickstart(&other).await;
    let account = format!("--service-account={}/embark", namespace.name());
    // The Deployment says which namespaces it serves.
    let (_, findings) = check(&namespace, &[&account]).await;
    assert!(has(&findings, ("rights", "ok", "has all")), "{findings}");
    assert!(has(&findings, ("models", "ok", "0 of 0 are ready")), "{findings}");
    // What the command line says goes first.
    let both = format!("--watch-namespaces={},{}", namespace.name(), other.name());
    let (code, findings) = check(&namespace, &[&account, &both]).await;
    assert_eq!(code, 1, "{findings}");
    let lacks = format!("may not list embeddingmodels.embark.dev in namespace {}", other.name());
    assert!(has(&findings, ("rights", "failed", &lacks)), "{findings}");
    assert!(has(&findings, ("models", "warning", "/quickstart is not ready")), "{findings}");
    let (_, findings) = check(&namespace, &[&account, "--lease-name=other"]).await;
    assert!(has(&findings, ("operator", "failed", "there is no Lease other")), "{findings}");
    namespace.kubectl(["delete", "deployment", "embark"]).await;
}

/// What it finds, as machines read it.
async fn check(namespace: &Namespace, arguments: &[&str]) -> (i32, Value) {
    let Finished { code, output, errors } =
        run(namespace, &[&["--output=json"], arguments].concat(), None).await;
    let findings = serde_json::from_str(&output);
    (code, findings.unwrap_or_else(|error| panic!("{error}: {output}{errors}")))
}

async fn run(namespace: &Namespace, arguments: &[&str], kubeconfig: Option<&Path>) -> Finished {
    let mut operator = namespace.plane().command(programs::operator());
    operator.arg("check").arg(format!("--operator-namespace={}", namespace.name())).args(arguments);
    if let Some(kubeconfig) = kubeconfig {
        operator.env("KUBECONFIG", kubeconfig);
    }
    programs::run(operator, b"").await
}

fn has(findings: &Value, (check, level, part): (&str, &str, &str)) -> bool {
    findings["findings"].as_array().unwrap().iter().any(|finding| {
        finding["check"] == check
            && finding["level"] == level
            && finding["message"].as_str().unwrap().contains(part)
    })
}

/// The edit, behind one that takes away the rules that speak of fields: a definition's rules and fields go together.
fn without_rules(edit: &Value) -> Value {
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    json!([
        {"op": "remove", "path": format!("{schema}/x-kubernetes-validations")},
        edit,
    ])
}
