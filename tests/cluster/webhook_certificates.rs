//! The webhook's certificates: made once, rotated while pods are made, put right whatever happens to them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use embark_tests::{
    authority::{Authority, Subject},
    cluster::{ControlPlane, Namespace},
    injection::{Injection, WEBHOOK, asking},
    sidecar::until,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::webhook::apply_model;

#[tokio::test]
async fn two_operators_that_race_end_with_one_certificate_and_both_serve() {
    let namespace = namespace("raced").await;
    let injection = Injection::start(&namespace, &[]).await;
    apply_model(&namespace, "quickstart").await;
    let other = injection.alone.operator.another("other").await;
    other.wait_for_line("the webhook shows another certificate").await;
    for round in 0..5 {
        let before = secret(&namespace).await;
        namespace.kubectl(["delete", "secret", WEBHOOK]).await;
        until("it is made anew", async || {
            let now = secret(&namespace).await;
            !now.is_null() && now != before
        })
        .await;
        let kept = secret(&namespace).await["ca.crt"].as_str().unwrap().to_owned();
        until("the API server is told", async || injection.authorities(&namespace).await == kept)
            .await;
        for operator in [&injection.alone.operator, &other] {
            injection.call(&namespace, operator).await;
            until("it serves with the one that is kept", async || admitted(&namespace).await).await;
        }
        // Nobody has written it after that.
        assert_eq!(secret(&namespace).await["ca.crt"], *kept, "round {round}");
    }
    let made = |log: &str| log.matches("made a certificate for the webhook").count();
    assert_eq!(made(&injection.alone.operator.log()) + made(&other.log()), 6);
    for log in [injection.alone.operator.log(), other.log()] {
        assert!(!log.contains("PRIVATE KEY"), "{log}");
    }
    other.stop().await;
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn rotation_while_pods_are_made_loses_none() {
    let namespace = namespace("rotated").await;
    // It holds for a minute more, and an operator's own for ten: it is time for another.
    let (old, one) = write_secret(&namespace, Duration::from_secs(60)).await;
    let more = ["--webhook-validity=10m", "--webhook-settle=4s"];
    let injection = Injection::start(&namespace, &more).await;
    apply_model(&namespace, "quickstart").await;
    // The API server hears of what it is told a moment later.
    until("the old one is good", async || admitted(&namespace).await).await;
    assert_eq!(secret(&namespace).await["tls.crt"], *old);
    let mut pods = 0;
    loop {
        admit(&namespace).await.unwrap_or_else(|error| panic!("pod {pods}: {error}"));
        pods += 1;
        let now = secret(&namespace).await;
        if now["tls.crt"] != *old && now["next.crt"].is_null() {
            break;
        }
    }
    let operator = &injection.alone.operator;
    operator.wait_for_line("the cluster knows the new authority").await;
    for pod in pods..pods + 10 {
        admit(&namespace).await.unwrap_or_else(|error| panic!("pod {pod}: {error}"));
    }
    // Both authorities are trusted still.
    let authorities = injection.authorities(&namespace).await;
    assert_eq!(secret(&namespace).await["ca.crt"], *authorities);
    assert!(authorities.len() > one.len() * 3 / 2, "{authorities}");
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn whatever_is_done_to_them_is_put_right() {
    let namespace = namespace("mended").await;
    let injection = Injection::start(&namespace, &[]).await;
    apply_model(&namespace, "quickstart").await;
    let told = injection.authorities(&namespace).await;
    let emptied = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    injection.patch(&namespace, &emptied).await;
    until("it is told again", async || injection.authorities(&namespace).await == told).await;
    // The authority of somebody else.
    let folder = tempfile::tempdir().unwrap();
    let other = base64(&fs::read(issue(folder.path(), &namespace)).unwrap());
    let replaced =
        json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": other}]);
    injection.patch(&namespace, &replaced).await;
    until("it is told once more", async || injection.authorities(&namespace).await == told).await;
    until("pods are made", async || admitted(&namespace).await).await;

    for garbage in [
        json!({"data": {"tls.key": "Z2FyYmFnZQ=="}}),
        json!({"data": {"ca.crt": null}}),
        json!({"data": {"tls.crt": "", "ca.crt": ""}}),
    ] {
        let patch = ["patch", "secret", WEBHOOK, "--patch", &garbage.to_string()];
        namespace.kubectl(patch).await;
        until("the Secret is good again", async || {
            let now = secret(&namespace).await;
            let kept = now["ca.crt"].as_str().unwrap_or_default().to_owned();
            kept.len() > 100 && injection.authorities(&namespace).await == kept
        })
        .await;
        until("pods are made again", async || admitted(&namespace).await).await;
    }
    let log = injection.alone.operator.log();
    assert!(log.contains("is of no use and is replaced: ca.crt is missing"), "{log}");
    assert!(!log.contains("garbage") && !log.contains("PRIVATE KEY"), "{log}");
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn mounted_files_of_somebody_else_are_shown_and_followed() {
    let namespace = namespace("mounted").await;
    let folder = tempfile::tempdir().unwrap();
    let argument = format!("--webhook-cert-dir={}", folder.path().display());
    let injection = Injection::start_untold(&namespace, &[&argument]).await;
    let operator = &injection.alone.operator;
    apply_model(&namespace, "quickstart").await;
    // They may come after the pod.
    let (code, why) = operator.get("/ready").await;
    assert!(code == 503 && why.contains("the webhook has no certificate yet"), "{code}: {why}");
    for _ in 0..2 {
        let bundle = issue(folder.path(), &namespace);
        let add = json!([{
            "op": "add", "path": "/webhooks/0/clientConfig/caBundle",
            "value": base64(&fs::read(bundle).unwrap()),
        }]);
        injection.patch(&namespace, &add).await;
        until("pods are made", async || admitted(&namespace).await).await;
        until("the operator is ready", async || operator.get("/ready").await.0 == 200).await;
    }
    assert!(secret(&namespace).await.is_null());
    injection.stop(&namespace).await;
}

async fn namespace(prefix: &str) -> Namespace {
    ControlPlane::shared().await.restricted_namespace(prefix).await
}

/// Has a pod judged that asks for a sidecar, and not stored.
async fn admit(namespace: &Namespace) -> Result<(), String> {
    let pod = asking("asks", "quickstart").to_string();
    let name = format!("--namespace={}", namespace.name());
    let create = [&name, "create", "--dry-run=server", "--filename", "-"];
    let created = namespace.plane().try_kubectl(create, &pod).await;
    if created.code == 0 { Ok(()) } else { Err(created.errors) }
}

/// Whether a pod that asks for a sidecar would be made.
pub(super) async fn admitted(namespace: &Namespace) -> bool {
    admit(namespace).await.is_ok()
}

/// The Secret's data; null when there is none.
async fn secret(namespace: &Namespace) -> Value {
    let name = format!("--namespace={}", namespace.name());
    let get = [&name, "get", "secret", WEBHOOK, "--output=json"];
    let found = namespace.plane().try_kubectl(get, "").await;
    serde_json::from_str::<Value>(&found.output).unwrap_or_default()["data"].take()
}

/// Keeps a certificate that holds for so long, as an operator would, and gives it and its authority as the Secret has them.
async fn write_secret(namespace: &Namespace, validity: Duration) -> (String, String) {
    let until = date_time_ymd(1970, 1, 1) + since_epoch() + validity;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "old");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.not_after = until;
    let authority_key = KeyPair::generate().unwrap();
    let bundle = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let host = format!("{WEBHOOK}.{}.svc", namespace.name());
    let mut leaf = CertificateParams::new(vec![host]).unwrap();
    leaf.not_after = until;
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap().pem();
    let data = json!({
        "ca.crt": bundle, "tls.crt": certificate, "tls.key": key.serialize_pem(),
    });
    let metadata = json!({"name": WEBHOOK});
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
    namespace.apply(&secret).await.unwrap();
    (base64(certificate.as_bytes()), base64(bundle.as_bytes()))
}

/// The time of this machine, by its own command.
fn since_epoch() -> Duration {
    let date = std::process::Command::new("date").arg("+%s").output().unwrap();
    Duration::from_secs(String::from_utf8(date.stdout).unwrap().trim().parse().unwrap())
}

/// Writes tls.crt and tls.key of a new authority, and gives its own certificate.
fn issue(folder: &Path, namespace: &Namespace) -> PathBuf {
    let made = folder.join("made");
    let authority = Authority::new(&made, "ca").unwrap();
    let host = format!("{WEBHOOK}.{}.svc", namespace.name());
    let subject =
        Subject { name: "tls", common_name: "webhook", group: None, hosts: &[host.as_str()] };
    authority.issue(subject).unwrap();
    for file in ["tls.crt", "tls.key"] {
        fs::copy(made.join(file), folder.join(file)).unwrap();
    }
    made.join("ca.crt")
}

fn base64(bytes: &[u8]) -> String {
    let value = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).unwrap();
    value.as_str().unwrap().to_owned()
}
