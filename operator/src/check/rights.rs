//! The rights that the operator needs, and whether an account has them. The chart's roles grant the same: a test compares.

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
    },
};
use kube::{Api, api::PostParams};

use super::installed::Written;
use super::{Finding, Looker, words};
use crate::args::Account;

const CHECK: &str = "rights";
/// Reviews that are asked for at a time.
const AT_A_TIME: usize = 8;
/// Missing rights that are told of.
const MOST_TOLD: usize = 10;

/// Verbs on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The API group; empty: the core.
    pub group: &'static str,
    /// The plural, with the subresource behind a slash.
    pub resource: &'static str,
    /// What is done with it.
    pub verbs: &'static [&'static str],
    /// Where.
    pub place: Place,
}

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In every namespace with models.
    Everywhere,
    /// Of an object that is in no namespace, of this name alone.
    Named(&'static str),
    /// In the operator's own namespace.
    Own,
    /// There, of its Lease alone.
    Lease,
    /// There, of the Secret of the webhook's certificates alone.
    Secret,
    /// Of the webhook's configuration alone.
    Configuration,
}

/// A right as it is asked for.
struct Asked {
    need: &'static Need,
    verb: &'static str,
    namespace: Option<String>,
    name: Option<String>,
}

/// Whose rights are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Operators,
    /// They say nothing of the operator's.
    Persons,
}

const fn everywhere(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> Need {
    Need { group, resource, verbs, place: Place::Everywhere }
}

/// What it makes, deletes and watches.
const KEEPS: &[&str] = &["create", "delete", "get", "list", "patch", "watch"];
/// The same, of what goes with its model alone.
const MAKES: &[&str] = &["create", "get", "list", "patch", "watch"];

/// Everything that the operator does, but for what its webhook does.
pub const NEEDED: &[Need] = &[
    everywhere("embark.dev", "embeddingmodels", &["list", "watch"]),
    everywhere("embark.dev", "embeddingmodels/status", &["patch"]),
    everywhere("", "configmaps", KEEPS),
    everywhere("", "serviceaccounts", KEEPS),
    everywhere("autoscaling", "horizontalpodautoscalers", KEEPS),
    everywhere("networking.k8s.io", "networkpolicies", KEEPS),
    everywhere("", "services", MAKES),
    everywhere("apps", "deployments", MAKES),
    everywhere("policy", "poddisruptionbudgets", MAKES),
    everywhere("monitoring.coreos.com", "podmonitors", MAKES),
    Need {
        group: "apiextensions.k8s.io",
        resource: "customresourcedefinitions",
        verbs: &["list", "watch"],
        place: Place::Named("podmonitors.monitoring.coreos.com"),
    },
    everywhere("", "pods", &["list", "patch", "watch"]),
    everywhere("apps", "replicasets", &["list"]),
    everywhere("events.k8s.io", "events", &["create", "patch"]),
    Need {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create"],
        place: Place::Own,
    },
    Need {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "update"],
        place: Place::Lease,
    },
];

/// What it does beyond that for its webhook.
pub const WEBHOOK: &[Need] = &[everywhere("embark.dev", "embeddingmodels", &["get"])];

/// What it does beyond that where the webhook makes its own certificates.
pub const CERTIFICATES: &[Need] = &[
    Need { group: "", resource: "secrets", verbs: &["create"], place: Place::Own },
    Need { group: "", resource: "secrets", verbs: &["get", "update"], place: Place::Secret },
    Need {
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        verbs: &["get", "patch"],
        place: Place::Configuration,
    },
];

pub(super) async fn look(looker: &Looker) -> Vec<Finding> {
    let who = match &looker.arguments.service_account {
        Some(Account { namespace, name }) => format!("{namespace}/{name}"),
        None => whoami(looker).await,
    };
    let is_account = looker.arguments.service_account.is_some() || who.starts_with(ACCOUNT);
    let whose = if is_account { Whose::Operators } else { Whose::Persons };
    let asked = asked(looker);
    let count = asked.len();
    let reviews: Vec<_> = asked.into_iter().map(|asked| review(looker, asked)).collect();
    let answers: Vec<_> = stream::iter(reviews).buffered(AT_A_TIME).collect().await;
    let mut missing = Vec::new();
    for answer in answers {
        match answer {
            Ok(None) => {}
            Ok(Some(right)) => missing.push(right),
            Err(error) => {
                return vec![Finding::unseen(CHECK, &format!("the rights of {who}"), &error)];
            }
        }
    }
    judge(&who, whose, count, &missing)
}

/// Every right that the operator needs, as it is installed.
fn asked(looker: &Looker) -> Vec<Asked> {
    let has_webhook = looker.installed.configurations.as_ref().is_ok_and(|all| !all.is_empty());
    let written = looker.installed.written();
    let of_webhook = if has_webhook { WEBHOOK } else { &[] };
    let of_certificates = if written.is_some() { CERTIFICATES } else { &[] };
    let needs = NEEDED.iter().chain(of_webhook).chain(of_certificates);
    let mut asked = Vec::new();
    for need in needs {
        for (namespace, name) in places(looker, need.place, written.as_ref()) {
            let one = |verb: &&'static str| Asked {
                need,
                verb,
                namespace: namespace.clone(),
                name: name.clone(),
            };
            asked.extend(need.verbs.iter().map(one));
        }
    }
    asked
}

/// The namespace and the name of what a right is for; none: of every one.
fn places(
    looker: &Looker,
    place: Place,
    written: Option<&Written>,
) -> Vec<(Option<String>, Option<String>)> {
    let namespaces = &looker.installed.namespaces;
    let own = Some(looker.arguments.operator_namespace.clone());
    match place {
        Place::Everywhere if namespaces.is_empty() => vec![(None, None)],
        Place::Everywhere => namespaces.iter().map(|one| (Some(one.clone()), None)).collect(),
        Place::Named(name) => vec![(None, Some(name.to_owned()))],
        Place::Own => vec![(own, None)],
        Place::Lease => vec![(own, Some(looker.installed.lease.clone()))],
        Place::Secret => vec![(own, written.map(|written| written.secret.clone()))],
        Place::Configuration => {
            vec![(None, written.map(|written| written.configuration.clone()))]
        }
    }
}

/// What the API server calls a service account.
const ACCOUNT: &str = "system:serviceaccount:";

fn judge(who: &str, whose: Whose, count: usize, missing: &[String]) -> Vec<Finding> {
    let hint = "--service-account NAMESPACE/NAME looks at the operator's own";
    if missing.is_empty() {
        let all = format!("{who} has all {count} rights that the operator needs");
        return vec![match whose {
            Whose::Persons => Finding::info(CHECK, format!("{all}; {hint}")),
            Whose::Operators => Finding::ok(CHECK, all),
        }];
    }
    if whose == Whose::Persons {
        let some = format!(
            "{who} lacks {} of the operator's {count} rights, which says nothing of the operator",
            missing.len()
        );
        return vec![Finding::warning(CHECK, some, hint)];
    }
    let mut findings: Vec<Finding> = missing
        .iter()
        .take(MOST_TOLD)
        .map(|right| {
            let todo = "bind the chart's roles to the account: helm upgrade, with rbac.create";
            Finding::failed(CHECK, format!("{who} may not {right}"), todo)
        })
        .collect();
    if let Some(more) = missing.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        let message = format!("{who} lacks {more} more rights");
        findings.push(Finding::failed(CHECK, message, "see the first of them"));
    }
    findings
}

/// Who the API server takes us for.
async fn whoami(looker: &Looker) -> String {
    let api = Api::<SelfSubjectReview>::all(looker.client.clone());
    let asked = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let name = asked.ok().and_then(|review| review.status?.user_info?.username);
    words(&name.unwrap_or_else(|| "whoever runs this".to_owned()))
}

/// A right that the account lacks; nothing, when it has it.
async fn review(looker: &Looker, asked: Asked) -> kube::Result<Option<String>> {
    let Asked { need, verb, namespace, name } = asked;
    let (resource, subresource) = match need.resource.split_once('/') {
        Some((resource, part)) => (resource, Some(part.to_owned())),
        None => (need.resource, None),
    };
    let right = {
        let of =
            need.group.is_empty().then(String::new).unwrap_or_else(|| format!(".{}", need.group));
        let named = name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let place = namespace
            .as_ref()
            .map_or("in every namespace".to_owned(), |n| format!("in namespace {n}"));
        format!("{verb} {}{of}{named} {place}", need.resource)
    };
    let attributes = ResourceAttributes {
        group: Some(need.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        namespace,
        name,
        ..ResourceAttributes::default()
    };
    let status = ask(looker, attributes).await?;
    Ok((!status.is_some_and(|status| status.allowed)).then_some(right))
}

async fn ask(
    looker: &Looker,
    attributes: ResourceAttributes,
) -> kube::Result<Option<SubjectAccessReviewStatus>> {
    let (client, parameters) = (looker.client.clone(), PostParams::default());
    let resource_attributes = Some(attributes);
    let Some(Account { namespace, name }) = &looker.arguments.service_account else {
        let spec = SelfSubjectAccessReviewSpec { resource_attributes, ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        return Ok(Api::all(client).create(&parameters, &review).await?.status);
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("{ACCOUNT}{namespace}:{name}")),
        groups: Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ]),
        resource_attributes,
        ..Default::default()
    };
    let review = SubjectAccessReview { spec, ..Default::default() };
    Ok(Api::all(client).create(&parameters, &review).await?.status)
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn a_person_without_rights_is_no_failure_and_an_account_without_is() {
        let levels = |whose, missing: &[String]| {
            let findings = judge("who", whose, 50, missing);
            (findings.len(), findings[0].level)
        };
        let one = ["get pods".to_owned()];
        assert_eq!(levels(Whose::Persons, &[]), (1, Level::Info));
        assert_eq!(levels(Whose::Operators, &[]), (1, Level::Ok));
        assert_eq!(levels(Whose::Persons, &one), (1, Level::Warning));
        assert_eq!(levels(Whose::Operators, &one), (1, Level::Failed));
        let many: Vec<String> = (0..50).map(|at| at.to_string()).collect();
        assert_eq!(levels(Whose::Operators, &many), (MOST_TOLD + 1, Level::Failed));
    }
}
