//! An operator whose webhook the API server of a control plane calls.
//!
//! There is no network of Services there. A Service of type ExternalName leads to a name, and the API server goes there itself:
//! to localhost, at the port that the configuration names.

use serde_json::{Value, json};

use crate::{
    cluster::Namespace,
    operator::{Alone, Operator, render_with},
    sidecar::until,
};

/// An operator with a webhook for the pods of one namespace, which is the operator's own too.
#[derive(Debug)]
pub struct Injection {
    /// The operator, and its turn.
    pub alone: Alone,
    /// The name of the MutatingWebhookConfiguration.
    pub configuration: String,
}

/// The Secret of the certificates, and the Service.
pub const WEBHOOK: &str = "embark-webhook";

// === impl Injection ===

impl Injection {
    /// Starts the operator with the chart's own Service, roles and configuration, and with these arguments, and waits until
    /// the API server knows who vouches for it.
    pub async fn start(namespace: &Namespace, more: &[&str]) -> Injection {
        let injection = Self::start_untold(namespace, more).await;
        until("the API server is told who vouches", async || {
            !injection.authorities(namespace).await.is_empty()
        })
        .await;
        injection
    }

    /// The same without the wait.
    pub async fn start_untold(namespace: &Namespace, more: &[&str]) -> Injection {
        Self::start_with(namespace, &[], more).await
    }

    /// The same with these values of the chart.
    pub async fn start_with(namespace: &Namespace, values: &[&str], more: &[&str]) -> Injection {
        let configuration = format!("embark-{}-injection", namespace.name());
        let mut arguments = vec![
            "--webhook-listen=127.0.0.1:0".to_owned(),
            format!("--webhook-configuration={configuration}"),
            "--webhook-every=200ms".to_owned(),
            "--webhook-drain=100ms".to_owned(),
        ];
        // What a test says itself stands.
        let name = |argument: &str| argument.split('=').next().map(str::to_owned);
        arguments.retain(|one| more.iter().all(|other| name(other) != name(one)));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let files = ["service_account", "rbac", "webhook"];
        let rendered = render_with(namespace.plane(), namespace.name(), (&files, values)).await;
        let mut objects = objects(&rendered);
        let at = objects.iter().position(|object| object["kind"] == "MutatingWebhookConfiguration");
        let mut webhook = objects.remove(at.expect("the chart has one"));
        assert_eq!(webhook["metadata"]["name"], configuration);
        let service = objects.iter_mut().find(|object| object["kind"] == "Service");
        let service = service.expect("the chart has one");
        assert_eq!(service["metadata"]["name"], WEBHOOK);
        service["spec"] = json!({ "type": "ExternalName", "externalName": "localhost" });
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string();
        let start = Operator::start_permitted(namespace, &list, arguments);
        let alone = Alone::start_as(start).await;
        // Other tests' pods are none of its business.
        webhook["webhooks"][0]["namespaceSelector"] =
            json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace.name() } });
        webhook["webhooks"][0]["clientConfig"]["service"]["port"] = port(&alone.operator).into();
        namespace.apply(&webhook).await.expect("the configuration is good");
        Injection { alone, configuration }
    }

    /// Lets the API server call another operator from now on.
    pub async fn call(&self, namespace: &Namespace, operator: &Operator) {
        let patch = json!([{
            "op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": port(operator),
        }]);
        self.patch(namespace, &patch).await;
    }

    /// Where the operator's webhook listens.
    pub fn address(&self) -> String {
        self.alone.operator.logged_address("the webhook listens")
    }

    /// Changes the configuration by a JSON patch.
    pub async fn patch(&self, namespace: &Namespace, patch: &Value) {
        let (name, patch) = (self.configuration.as_str(), patch.to_string());
        let kind = "mutatingwebhookconfiguration";
        namespace.plane().kubectl(["patch", kind, name, "--type=json", "--patch", &patch]).await;
    }

    /// Who vouches for the webhook as the API server knows it, in base64.
    pub async fn authorities(&self, namespace: &Namespace) -> String {
        let path = "--output=jsonpath={.webhooks[0].clientConfig.caBundle}";
        let get = ["get", "mutatingwebhookconfiguration", &self.configuration, path];
        namespace.plane().try_kubectl(get, "").await.output
    }

    /// Ends the operator, and takes the configuration away.
    pub async fn stop(self, namespace: &Namespace) {
        self.alone.stop().await;
        let delete = ["delete", "mutatingwebhookconfiguration", &self.configuration];
        namespace.plane().kubectl(delete).await;
    }
}

// === free functions ===

/// A pod that meets Pod Security `restricted` and asks for a sidecar with these models.
pub fn asking(name: &str, models: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "embark.dev/inject": "true" },
            "annotations": { "embark.dev/models": models },
        },
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "application", "image": "localhost/none",
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// The documents of what Helm rendered.
fn objects(rendered: &str) -> Vec<Value> {
    let documents = rendered.split("\n---\n").map(|document| {
        serde_saphyr::from_str::<Value>(document.trim_start_matches("---\n")).expect("it is YAML")
    });
    documents.filter(|document| !document.is_null()).collect()
}

fn port(operator: &Operator) -> u16 {
    let address = operator.logged_address("the webhook listens");
    let (_, port) = address.rsplit_once(':').expect("an address with a port");
    port.parse().expect("a port")
}
