//! The chart's other way to certificates: cert-manager issues what the webhook shows, and tells the API server who vouches for it.

use std::{fs, path::Path};

use embark_tests::{
    cert_manager::CertManager,
    cluster::{ControlPlane, Namespace},
    injection::{Injection, WEBHOOK},
    sidecar::until,
};

use crate::{webhook::apply_model, webhook_certificates::admitted};

/// What the chart's Certificate is kept in.
const SECRET: &str = "embark-webhook-tls";

#[tokio::test]
async fn cert_manager_issues_what_the_webhook_shows_and_issues_it_anew() {
    // Of its own: its definitions are the cluster's.
    let plane = ControlPlane::start().await;
    let _cert_manager = CertManager::start(&plane).await;
    let namespace = plane.restricted_namespace("issued").await;
    let folder = tempfile::tempdir().unwrap();
    let values = ["webhook.certManager.enabled=true"];
    let argument = format!("--webhook-cert-dir={}", folder.path().display());
    let injection = Injection::start_with(&namespace, &values, &[&argument]).await;
    let operator = &injection.alone.operator;
    apply_model(&namespace, "quickstart").await;
    let certificate = format!("certificate/{WEBHOOK}");
    let issued = ["wait", "--for=condition=Ready", &certificate, "--timeout=120s"];
    namespace.kubectl(issued).await;
    let first = mount(&namespace, folder.path()).await;
    until("a pod is made", async || admitted(&namespace).await).await;
    until("the operator is ready", async || operator.get("/ready").await.0 == 200).await;
    let authority = injection.authorities(&namespace).await;

    // Another key, by the same authority: pods are made before the operator shows it, and after.
    namespace.kubectl(["delete", "secret", SECRET]).await;
    until("it is issued anew", async || {
        file(&namespace, "tls.crt").await.is_some_and(|new| new != first)
    })
    .await;
    namespace.kubectl(issued).await;
    assert!(admitted(&namespace).await);
    assert_ne!(mount(&namespace, folder.path()).await, first);
    let shown = "the webhook shows another certificate";
    until("the operator shows it", async || operator.log().matches(shown).count() == 2).await;
    assert!(admitted(&namespace).await);
    assert_eq!(injection.authorities(&namespace).await, authority);
    injection.stop(&namespace).await;
}

/// Puts what is issued where the operator looks, as a kubelet does, and gives the certificate.
async fn mount(namespace: &Namespace, folder: &Path) -> String {
    let mut mounted = Vec::new();
    for name in ["tls.key", "tls.crt"] {
        let text = file(namespace, name).await.expect("it was issued");
        fs::write(folder.join(name), &text).unwrap();
        mounted.push(text);
    }
    mounted.pop().unwrap_or_default()
}

/// A file of the Secret, once there is one.
async fn file(namespace: &Namespace, name: &str) -> Option<String> {
    let path = format!("--output=go-template={{{{index .data {name:?} | base64decode}}}}");
    let namespace_argument = format!("--namespace={}", namespace.name());
    let get = [namespace_argument.as_str(), "get", "secret", SECRET, &path];
    let found = namespace.plane().try_kubectl(get, "").await;
    (found.code == 0 && !found.output.is_empty()).then_some(found.output)
}
