//! Whether an operator leads. Its Lease is looked at until it was renewed: no clock of another machine is believed.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};
use tokio::time::{Instant, interval};

use super::{Finding, Looker, words};
use crate::names::OPERATORS;

const CHECK: &str = "operator";
/// How long a leader may take to renew its Lease. It does so every two seconds, and gives up after ten.
const RENEWED_WITHIN: Duration = Duration::from_secs(12);
/// How often the Lease is looked at.
const EVERY: Duration = Duration::from_millis(500);

pub(super) async fn look(looker: &Looker) -> Vec<Finding> {
    vec![deployment(looker), lease(looker).await]
}

fn deployment(looker: &Looker) -> Finding {
    let namespace = &looker.arguments.operator_namespace;
    let found = match &looker.installed.deployment {
        Ok(Some(found)) => found,
        Ok(None) => {
            let message =
                format!("no Deployment of it is in namespace {namespace}: it runs some other way");
            return Finding::info(CHECK, message);
        }
        Err(error) => return Finding::unseen(CHECK, "its Deployment", error),
    };
    let name = found.name_any();
    let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let message = format!("{ready} of {wanted} pods of Deployment {name} are ready");
    let todo = format!("kubectl describe pods --namespace {namespace} --selector {OPERATORS}");
    match ready {
        0 => Finding::failed(CHECK, message, todo),
        _ if ready < wanted => Finding::warning(CHECK, message, todo),
        _ => Finding::ok(CHECK, message),
    }
}

async fn lease(looker: &Looker) -> Finding {
    let namespace = &looker.arguments.operator_namespace;
    let name = &looker.installed.lease;
    let api = Api::<Lease>::namespaced(looker.client.clone(), namespace);
    let todo = format!(
        "see the operator's log in namespace {namespace}; --operator-namespace and --lease-name name another"
    );
    let end = Instant::now() + RENEWED_WITHIN;
    let (mut looks, mut first) = (interval(EVERY), None);
    loop {
        looks.tick().await;
        let lease = match api.get_opt(name).await {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                let message = format!(
                    "no operator has ever led in namespace {namespace}: there is no Lease {name}"
                );
                return Finding::failed(CHECK, message, todo);
            }
            Err(error) => return Finding::unseen(CHECK, "its Lease", &error),
        };
        let version = lease.resource_version();
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        if first.is_some() && first != Some(version.clone()) && !holder.is_empty() {
            return Finding::ok(CHECK, format!("{} leads", words(&holder)));
        }
        first.get_or_insert(version);
        if Instant::now() >= end {
            let message = match holder.as_str() {
                "" => format!("nobody leads: nobody holds Lease {name}"),
                holder => {
                    format!(
                        "nobody leads: {} has not renewed Lease {name} within {RENEWED_WITHIN:?}",
                        words(holder)
                    )
                }
            };
            return Finding::failed(CHECK, message, todo);
        }
    }
}
