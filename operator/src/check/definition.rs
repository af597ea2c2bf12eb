//! Whether the cluster's CustomResourceDefinition is the one that this binary was built with.

use std::collections::{BTreeMap, BTreeSet};

use embark_crds::{crd, v1alpha1::EmbeddingModel};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, CustomResourceExt as _, Resource as _, ResourceExt as _};
use serde_json::Value;

use super::{Finding, Looker};

const CHECK: &str = "definition";
const APPLY: &str = "embark-operator crds apply";

/// How two definitions differ, and where first.
#[derive(Debug, PartialEq, Eq)]
enum Compared {
    Same,
    /// It lacks a field of ours.
    Older(String),
    /// It has a field that ours lacks.
    Newer(String),
    /// Something else.
    Other(String),
}

pub(super) async fn look(looker: &Looker) -> Vec<Finding> {
    let api = Api::<CustomResourceDefinition>::all(looker.client.clone());
    let name = EmbeddingModel::crd().name_any();
    match api.get_opt(&name).await {
        Ok(Some(live)) => judge(&live),
        Ok(None) => {
            vec![Finding::failed(CHECK, format!("{name} is not there"), APPLY)]
        }
        Err(error) => vec![Finding::unseen(CHECK, &name, &error)],
    }
}

fn judge(live: &CustomResourceDefinition) -> Vec<Finding> {
    let status = live.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is_served = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
    if !is_served {
        let why = conditions.iter().find(|one| one.status == "False").map(|one| &one.message);
        let why = why.cloned().flatten().unwrap_or_default();
        let message = format!("it is there and not served: {}", super::words(&why));
        return vec![Finding::failed(CHECK, message, format!("mend what it says, or {APPLY}"))];
    }
    let ours = EmbeddingModel::version(&());
    let stored = status.stored_versions.unwrap_or_default();
    let strange = stored.iter().find(|version| **version != ours);
    let mut findings = Vec::from_iter(strange.map(|version| {
        let message = format!(
            "objects may be stored as {}, which this knows nothing of",
            super::words(version)
        );
        Finding::failed(CHECK, message, "use the version of embark that wrote them")
    }));
    let expected = serde_json::from_value(crd::crd_json()).expect("it is one");
    findings.push(match compare(&fields_of(live), &fields_of(&expected)) {
        Compared::Same => Finding::ok(CHECK, "served, and the one of this version"),
        Compared::Older(field) => Finding::failed(
            CHECK,
            format!("it is older than this version: it does not know {field}, and drops it"),
            APPLY,
        ),
        Compared::Newer(field) => Finding::warning(
            CHECK,
            format!("it is newer than this version: {field} is not known here"),
            "upgrade the operator to the version of the definition",
        ),
        Compared::Other(field) => Finding::warning(
            CHECK,
            format!("it is of another version, or was edited: {field} differs"),
            APPLY,
        ),
    });
    findings
}

/// Every value of a definition's versions, by its path. Both sides go through the same types, so that what stands for
/// nothing is left out alike.
fn fields_of(definition: &CustomResourceDefinition) -> BTreeMap<String, Value> {
    let versions = serde_json::to_value(&definition.spec.versions).unwrap_or_default();
    let mut fields = BTreeMap::new();
    flatten(&versions, String::new(), &mut fields);
    fields
}

fn flatten(value: &Value, path: String, fields: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                flatten(member, format!("{path}.{name}"), fields);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                flatten(item, format!("{path}[{at}]"), fields);
            }
        }
        value => drop(fields.insert(path, value.clone())),
    }
}

fn compare(live: &BTreeMap<String, Value>, ours: &BTreeMap<String, Value>) -> Compared {
    let typed = |fields: &BTreeMap<String, Value>| -> BTreeSet<String> {
        fields.keys().filter_map(|path| field(path)).collect()
    };
    let (known, expected) = (typed(live), typed(ours));
    let first = |one: &BTreeSet<String>, other| one.difference(other).next().cloned();
    match (first(&expected, &known), first(&known, &expected)) {
        (Some(missing), None) => return Compared::Older(missing),
        (None, Some(more)) => return Compared::Newer(more),
        (Some(missing), Some(_)) => return Compared::Other(missing),
        (None, None) => {}
    }
    let all = live.keys().chain(ours.keys());
    match all.into_iter().find(|path| live.get(*path) != ours.get(*path)) {
        Some(path) => Compared::Other(path.trim_start_matches('.').to_owned()),
        None => Compared::Same,
    }
}

/// The field of an object that a path within a schema gives the type of.
fn field(path: &str) -> Option<String> {
    let schema = path.split_once(".schema.openAPIV3Schema.properties.")?.1.strip_suffix(".type")?;
    Some(schema.replace(".items", "[]").replace(".properties.", "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> CustomResourceDefinition {
        serde_json::from_value(crd::crd_json()).unwrap()
    }

    fn edited(edit: impl FnOnce(&mut Value)) -> Compared {
        let mut json = crd::crd_json();
        edit(&mut json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]);
        compare(&fields_of(&serde_json::from_value(json).unwrap()), &fields_of(&ours()))
    }

    #[test]
    fn a_definition_of_another_version_is_told_by_its_fields() {
        assert_eq!(edited(|_| {}), Compared::Same);
        let older = edited(|schema| {
            let cache = &mut schema["spec"]["properties"]["cache"]["properties"];
            cache.as_object_mut().unwrap().remove("epoch").unwrap();
        });
        assert_eq!(older, Compared::Older("spec.cache.epoch".to_owned()));
        let newer = edited(|schema| {
            schema["spec"]["properties"]["later"] = serde_json::json!({"type": "string"});
        });
        assert_eq!(newer, Compared::Newer("spec.later".to_owned()));
        let other = edited(|schema| {
            schema["spec"]["properties"]["replicas"]["maximum"] = 7.into();
        });
        assert!(
            matches!(&other, Compared::Other(path) if path.ends_with("replicas.maximum")),
            "{other:?}"
        );
    }

    #[test]
    fn a_definition_that_is_not_served_fails_whatever_it_says() {
        let mut live = ours();
        live.status = None;
        assert_eq!(judge(&live)[0].level, super::super::Level::Failed);
    }
}
