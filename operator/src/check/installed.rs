//! The operator as it is installed: its Deployment, and what that tells it. What the command line says goes first.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment,
    core::v1::Container,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use tokio::time::timeout;

use super::FIRST_WITHIN;
use crate::{
    args::Check,
    names::{LEASE, OPERATORS},
};

/// The most Deployments and configurations that are looked at.
const MOST: u32 = 100;
/// What cert-manager is told by: then the operator keeps no certificates.
const CERT_MANAGER: &str = "cert-manager.io/inject-ca-from";

/// The operator as it is installed.
#[derive(Debug)]
pub(super) struct Installed {
    /// Its Deployment; `None`: it runs some other way.
    pub(super) deployment: kube::Result<Option<Deployment>>,
    /// Its Lease.
    pub(super) lease: String,
    /// The namespaces whose models it serves; empty: every one.
    pub(super) namespaces: BTreeSet<String>,
    /// The configurations of its webhook.
    pub(super) configurations: kube::Result<Vec<MutatingWebhookConfiguration>>,
    /// The Secret that its Deployment names for the webhook's certificates.
    secret: Option<String>,
    /// Whether its Deployment says that there is a webhook.
    pub(super) has_webhook: bool,
}

/// What the webhook that makes its own certificates writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) configuration: String,
    pub(super) secret: String,
}

// === impl Installed ===

impl Installed {
    pub(super) async fn find(client: &Client, arguments: &Check) -> Self {
        let (deployment, configurations) = tokio::join!(
            in_time(deployment(client, arguments)),
            in_time(configurations(client, arguments)),
        );
        let container = deployment.as_ref().ok().and_then(Option::as_ref).and_then(operator);
        let said = |name| container.and_then(|container| option(container, name));
        let namespaces = match arguments.watch_namespaces.as_slice() {
            [] => list(said("--watch-namespaces").or_else(|| container.and_then(watched))),
            said => said.iter().cloned().collect(),
        };
        let lease = arguments.lease_name.clone().or_else(|| said("--lease-name"));
        let (has_webhook, secret) = (said("--webhook-listen").is_some(), said("--webhook-secret"));
        // Another release may be in the same namespace.
        let own = said("--webhook-configuration").filter(|_| arguments.webhook.is_none());
        let is_own = |one: &MutatingWebhookConfiguration| {
            own.as_ref().is_none_or(|own| one.name_any() == *own)
        };
        let configurations =
            configurations.map(|all| all.into_iter().filter(is_own).collect::<Vec<_>>());
        let lease = lease.unwrap_or_else(|| LEASE.to_owned());
        Installed { deployment, lease, namespaces, configurations, secret, has_webhook }
    }

    /// What the webhook writes, if it makes its own certificates.
    pub(super) fn written(&self) -> Option<Written> {
        let mut all = self.configurations.iter().flatten();
        let ours = all.find(|one| !one.annotations().contains_key(CERT_MANAGER))?;
        let service = || {
            let mut webhooks = ours.webhooks.iter().flatten();
            webhooks.find_map(|webhook| Some(webhook.client_config.service.as_ref()?.name.clone()))
        };
        // The chart calls the Secret as it does the Service.
        let secret = self.secret.clone().or_else(service)?;
        Some(Written { configuration: ours.name_any(), secret })
    }
}

// === free functions ===

/// A cluster that does not answer in time is one that does not say.
async fn in_time<T>(look: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = || format!("the API server did not answer within {FIRST_WITHIN:?}");
    timeout(FIRST_WITHIN, look).await.unwrap_or_else(|_| Err(kube::Error::Service(late().into())))
}

async fn deployment(client: &Client, arguments: &Check) -> kube::Result<Option<Deployment>> {
    let api = Api::<Deployment>::namespaced(client.clone(), &arguments.operator_namespace);
    let list = api.list(&ListParams::default().labels(OPERATORS).limit(MOST)).await?;
    let Some(lease) = &arguments.lease_name else { return Ok(list.items.into_iter().next()) };
    // Several releases may be in one namespace: the Lease tells them apart.
    let has_it = |found: &Deployment| {
        let said = operator(found).and_then(|container| option(container, "--lease-name"));
        said.as_deref().unwrap_or(LEASE) == lease
    };
    Ok(list.items.into_iter().find(has_it))
}

async fn configurations(
    client: &Client,
    arguments: &Check,
) -> kube::Result<Vec<MutatingWebhookConfiguration>> {
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    if let Some(name) = &arguments.webhook {
        return Ok(api.get_opt(name).await?.into_iter().collect());
    }
    let list = api.list(&ListParams::default().labels(OPERATORS).limit(MOST)).await?;
    let calls = |configuration: &MutatingWebhookConfiguration| {
        configuration.webhooks.iter().flatten().any(|webhook| {
            let service = webhook.client_config.service.as_ref();
            service.is_some_and(|service| service.namespace == arguments.operator_namespace)
        })
    };
    Ok(list.items.into_iter().filter(calls).collect())
}

/// The container that the operator runs in.
fn operator(deployment: &Deployment) -> Option<&Container> {
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    let is_operator = |container: &&Container| container.name == "operator";
    containers.iter().find(is_operator).or(containers.first())
}

/// The value of an argument, which is one with the argument or behind it.
fn option(container: &Container, name: &str) -> Option<String> {
    let mut arguments = container.args.iter().chain(&container.command).flatten();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(name) {
            Some("") => return arguments.next().cloned(),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
            _ => {}
        }
    }
    None
}

/// The namespaces of its environment.
fn watched(container: &Container) -> Option<String> {
    let mut variables = container.env.iter().flatten();
    variables.find(|one| one.name == "EMBARK_WATCH_NAMESPACES")?.value.clone()
}

fn list(text: Option<String>) -> BTreeSet<String> {
    let text = text.unwrap_or_default();
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_both_ways_that_they_are_written() {
        let container = |arguments: &[&str]| Container {
            args: Some(arguments.iter().map(|one| (*one).to_owned()).collect()),
            ..Container::default()
        };
        let name = "--watch-namespaces";
        for (arguments, expected) in [
            (&["run", "--watch-namespaces=a,b"][..], Some("a,b")),
            (&["run", "--watch-namespaces", "a,b", "--x"], Some("a,b")),
            (&["run", "--watch-namespaces-of=a"], None),
            (&["run", "--watch-namespaces"], None),
            (&[], None),
        ] {
            assert_eq!(option(&container(arguments), name).as_deref(), expected, "{arguments:?}");
        }
        let names = list(Some("b, a,,".to_owned()));
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
