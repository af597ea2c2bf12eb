//! Whether the webhook that gives pods a sidecar can be reached, and who vouches for it. A pod is tried that asks for a model
//! which cannot be there: the webhook's refusal is what it is known by. It is a dry run: nothing is made.

use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhook, core::v1::Pod},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, api::PostParams};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

use super::{Finding, Looker, words};
use crate::{
    kube_ext::chain,
    names::{INJECT, MODELS},
    x509,
};

const CHECK: &str = "webhook";
/// A model that cannot be: the name is longer than a model's may be.
const NO_MODEL: &str = "no-model-has-this-name-which-is-longer-than-names-may-be";
/// An authority that ends sooner is told of.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) async fn look(looker: &Looker) -> Vec<Finding> {
    let configurations = match &looker.installed.configurations {
        Ok(configurations) if !configurations.is_empty() => configurations,
        Ok(_) => return vec![absent(looker)],
        Err(error) => {
            return vec![Finding::unseen(CHECK, "the webhook's configuration", error)];
        }
    };
    let webhooks = configurations.iter().flat_map(|one| one.webhooks.iter().flatten());
    let webhooks: Vec<MutatingWebhook> = webhooks.cloned().collect();
    let mut findings: Vec<Finding> =
        webhooks.iter().map(|webhook| authority(webhook, Timestamp::now())).collect();
    findings.push(reach(looker, &webhooks).await);
    findings
}

fn absent(looker: &Looker) -> Finding {
    let what = match &looker.arguments.webhook {
        Some(name) => format!("there is no MutatingWebhookConfiguration {name}"),
        None => format!(
            "no MutatingWebhookConfiguration of the chart's labels calls namespace {}",
            looker.arguments.operator_namespace
        ),
    };
    if looker.installed.has_webhook {
        let todo = "install the chart again, or name the configuration by --webhook";
        return Finding::failed(CHECK, format!("the operator has a webhook, and {what}"), todo);
    }
    Finding::info(CHECK, format!("not installed: {what}, and no pod is given a sidecar"))
}

/// Who vouches for a webhook, and until when.
fn authority(webhook: &MutatingWebhook, now: Timestamp) -> Finding {
    let name = words(&webhook.name);
    let bundle = webhook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) else {
        let message =
            format!("{name}: its caBundle is empty, so that the API server trusts nobody");
        let todo = "see the operator's log: it writes the bundle, unless cert-manager does";
        return Finding::failed(CHECK, message, todo);
    };
    let authorities: Vec<_> =
        CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok).collect();
    let Some(end) = authorities.iter().filter_map(|one| x509::end(one)).max() else {
        let message = format!("{name}: its caBundle holds no certificate");
        return Finding::failed(CHECK, message, "clear it, so that the operator writes it anew");
    };
    let left = end.duration_since(now);
    let days = left.as_hours() / 24;
    if left.is_negative() {
        let message = format!("{name}: the last certificate of its caBundle ended at {end}");
        return Finding::failed(
            CHECK,
            message,
            "see why the operator, or cert-manager, made no other",
        );
    }
    let message = format!("{name}: its caBundle holds for {days} days, until {end}");
    if left < SOON {
        let todo = "see why the operator, or cert-manager, made no other";
        return Finding::warning(CHECK, message, todo);
    }
    Finding::ok(CHECK, message)
}

/// Whether the webhook answers, by its refusal.
async fn reach(looker: &Looker, webhooks: &[MutatingWebhook]) -> Finding {
    let namespace = &looker.arguments.namespace;
    let pods = Api::<Pod>::namespaced(looker.client.clone(), namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    judge(namespace, webhooks, pods.create(&dry_run, &pod()).await)
}

fn judge(namespace: &str, webhooks: &[MutatingWebhook], tried: kube::Result<Pod>) -> Finding {
    let ours =
        |said: &str| webhooks.iter().any(|webhook| said.contains(&format!("{:?}", webhook.name)));
    let error = match tried {
        Ok(_) => {
            let message =
                format!("a labelled pod in namespace {namespace} was not given to the webhook");
            let todo = "see whether the configuration's namespaceSelector leaves that namespace out; --namespace names another";
            return Finding::warning(CHECK, message, todo);
        }
        Err(error) => error,
    };
    let said = match &error {
        kube::Error::Api(status) => status.message.clone(),
        error => chain(error),
    };
    if ours(&said) && said.contains("denied the request") {
        return Finding::ok(CHECK, format!("it answers for pods of namespace {namespace}"));
    }
    let said = words(&said);
    if said.contains("failed calling webhook") {
        let todo = "see that its Service has endpoints, that the API server may reach them, and that no NetworkPolicy is between";
        return Finding::failed(CHECK, format!("the API server does not reach it: {said}"), todo);
    }
    let message = format!("somebody else refused the pod that was tried: {said}");
    Finding::warning(
        CHECK,
        message,
        "name another namespace by --namespace, or run this as somebody who may make pods",
    )
}

/// A pod that asks for a sidecar, and meets Pod Security `restricted`.
fn pod() -> Pod {
    let pod = json!({
        "metadata": {
            "generateName": "embark-check-",
            "labels": {INJECT: "true"},
            "annotations": {MODELS: NO_MODEL},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "application",
                "image": "localhost/none",
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    });
    serde_json::from_value(pod).expect("it is a pod")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{ByteString, jiff::ToSpan as _};
    use kube::core::Status;

    use super::{super::Level, *};

    fn webhook(bundle: Option<&str>) -> MutatingWebhook {
        let mut webhook =
            MutatingWebhook { name: "inject.embark.dev".into(), ..Default::default() };
        webhook.client_config.ca_bundle = bundle.map(|pem| ByteString(pem.as_bytes().to_vec()));
        webhook
    }

    fn refused(code: u16, message: &str) -> Level {
        let status = Status::failure(message, "").with_code(code).boxed();
        judge("default", &[webhook(None)], Err(kube::Error::Api(status))).level
    }

    #[test]
    fn a_refusal_of_the_webhook_shows_that_it_answers() {
        let denied = r#"admission webhook "inject.embark.dev" denied the request: no model"#;
        assert_eq!(refused(403, denied), Level::Ok);
        let unreached =
            r#"Internal error occurred: failed calling webhook "inject.embark.dev": refused"#;
        assert_eq!(refused(500, unreached), Level::Failed);
        assert_eq!(
            refused(403, r#"admission webhook "other" denied the request: no"#),
            Level::Warning
        );
        assert_eq!(refused(403, "pods is forbidden: exceeded quota"), Level::Warning);
        assert_eq!(judge("default", &[webhook(None)], Ok(pod())).level, Level::Warning);
    }

    #[test]
    fn an_authority_is_judged_by_its_end() {
        let pem = include_str!("../../tests/authority.crt");
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        assert_eq!(authority(&webhook(Some(pem)), now).level, Level::Ok);
        let end = x509::end(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        assert_eq!(authority(&webhook(Some(pem)), end - 24.hours()).level, Level::Warning);
        assert_eq!(authority(&webhook(Some(pem)), end + 1.second()).level, Level::Failed);
        for none in [None, Some(""), Some("no certificate")] {
            assert_eq!(authority(&webhook(none), now).level, Level::Failed, "{none:?}");
        }
    }
}
