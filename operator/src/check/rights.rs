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

use super::{Finding, Looker, words};
use crate::{args::Account, settings::LEASE};

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
    /// There, of the object of this name alone.
    OwnNamed(&'static str),
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

/// Everything that the operator does, but for what its webhook does: that is seen when it is tried.
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
        place: Place::OwnNamed(LEASE),
    },
];

pub(super) async fn look(looker: &Looker) -> Vec<Finding> {
    let who = match &looker.arguments.service_account {
        Some(Account { namespace, name }) => format!("{namespace}/{name}"),
        None => whoami(looker).await,
    };
    // A person's rights say nothing of the operator's.
    let is_person = looker.arguments.service_account.is_none() && !who.starts_with(ACCOUNT);
    let asked = NEEDED.iter().flat_map(|need| need.verbs.iter().map(move |verb| (need, *verb)));
    let asked: Vec<_> = asked.map(|(need, verb)| review(looker, need, verb)).collect();
    let count = asked.len();
    let answers: Vec<_> = stream::iter(asked).buffered(AT_A_TIME).collect().await;
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
    judge(&who, is_person, count, &missing)
}

/// What the API server calls a service account.
const ACCOUNT: &str = "system:serviceaccount:";

fn judge(who: &str, is_person: bool, count: usize, missing: &[String]) -> Vec<Finding> {
    let hint = "--service-account NAMESPACE/NAME looks at the operator's own";
    if missing.is_empty() {
        let all = format!("{who} has all {count} rights that the operator needs");
        return vec![match is_person {
            true => Finding::info(CHECK, format!("{all}; {hint}")),
            false => Finding::ok(CHECK, all),
        }];
    }
    if is_person {
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
async fn review(
    looker: &Looker,
    need: &'static Need,
    verb: &'static str,
) -> kube::Result<Option<String>> {
    let (resource, subresource) = match need.resource.split_once('/') {
        Some((resource, part)) => (resource, Some(part.to_owned())),
        None => (need.resource, None),
    };
    let own = Some(looker.arguments.operator_namespace.clone());
    let (namespace, name) = match need.place {
        Place::Everywhere => (None, None),
        Place::Named(name) => (None, Some(name.to_owned())),
        Place::Own => (own, None),
        Place::OwnNamed(name) => (own, Some(name.to_owned())),
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
        let levels = |is_person, missing: &[String]| {
            let findings = judge("who", is_person, 50, missing);
            (findings.len(), findings[0].level)
        };
        let one = ["get pods".to_owned()];
        assert_eq!(levels(true, &[]), (1, Level::Info));
        assert_eq!(levels(false, &[]), (1, Level::Ok));
        assert_eq!(levels(true, &one), (1, Level::Warning));
        assert_eq!(levels(false, &one), (1, Level::Failed));
        let many: Vec<String> = (0..50).map(|at| at.to_string()).collect();
        assert_eq!(levels(false, &many), (MOST_TOLD + 1, Level::Failed));
    }
}
