//! Rights that roles grant, and whether they are those that an account needs: what it was refused, what it did by others'
//! leave, and what it never used. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::requests::Request;

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// As a rule has it.
    pub verb: String,
    /// The API group; empty: the core.
    pub group: String,
    /// The plural, with the subresource behind a slash.
    pub resource: String,
    /// The one object that it is for; none: for all.
    pub name: Option<String>,
    /// Where.
    pub place: Place,
}

/// Where a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the whole cluster.
    Everywhere,
    /// In the account's own namespace.
    Own,
    /// In other namespaces, by name.
    Others,
}

/// How rights and requests differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the account asked for in vain, and is not granted.
    pub refused: Vec<Request>,
    /// What it did, and no right of these is for.
    pub uncovered: Vec<Request>,
    /// What it never did.
    pub unused: Vec<Right>,
}

// === impl Right ===

impl Right {
    fn covers(&self, request: &Request) -> bool {
        let own = request.account.split(':').next();
        let is_there = match self.place {
            Place::Everywhere => true,
            Place::Own => request.namespace.as_deref() == own,
            Place::Others => request.namespace.is_some() && request.namespace.as_deref() != own,
        };
        let is_object = self.name.is_none() || self.name == request.name;
        let what = [&self.verb, &self.group, &self.resource];
        is_there && is_object && what == [&request.verb, &request.group, &request.resource]
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Right { verb, group, resource, name, place } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")?;
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        match place {
            Place::Everywhere => Ok(()),
            Place::Own => write!(f, ", in its own namespace"),
            Place::Others => write!(f, ", in other namespaces"),
        }
    }
}

// === free functions ===

/// The rights that these objects grant to an account (`NAMESPACE`, `NAME`): by roles that are bound to it.
pub fn granted(objects: &[Value], (namespace, name): (&str, &str)) -> BTreeSet<Right> {
    let is_ours = |subject: &Value| {
        let of = [&subject["kind"], &subject["namespace"], &subject["name"]];
        of == ["ServiceAccount", namespace, name]
    };
    let mut rights = BTreeSet::new();
    for binding in objects {
        let kind = text(&binding["kind"]);
        if !kind.ends_with("RoleBinding") || !items(&binding["subjects"]).iter().any(is_ours) {
            continue;
        }
        let place = match binding["metadata"]["namespace"].as_str() {
            _ if kind == "ClusterRoleBinding" => Place::Everywhere,
            Some(of_binding) if of_binding != namespace => Place::Others,
            _ => Place::Own,
        };
        let is_role = |role: &&Value| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
                && (role["kind"] == "ClusterRole"
                    || role["metadata"]["namespace"] == binding["metadata"]["namespace"])
        };
        for role in objects.iter().filter(is_role) {
            for rule in items(&role["rules"]) {
                add_rule(&mut rights, rule, place);
            }
        }
    }
    rights
}

/// Compares an account's rights with its requests.
pub fn difference(rights: &BTreeSet<Right>, requests: &BTreeSet<Request>) -> Difference {
    let (mut refused, mut uncovered) = (Vec::new(), Vec::new());
    let mut unused: Vec<Right> = rights.iter().cloned().collect();
    for request in requests {
        let is_covered = rights.iter().any(|right| right.covers(request));
        if request.refused.is_some() {
            // An API server that has just started knows of no role: what roles do grant was not refused for want of them.
            if !is_covered {
                refused.push(request.clone());
            }
            continue;
        }
        if !is_covered {
            uncovered.push(request.clone());
        }
        unused.retain(|right| !right.covers(request));
    }
    Difference { refused, uncovered, unused }
}

fn add_rule(rights: &mut BTreeSet<Right>, rule: &Value, place: Place) {
    let names: Vec<Option<String>> = match items(&rule["resourceNames"]) {
        [] => vec![None],
        names => names.iter().map(|name| Some(text(name))).collect(),
    };
    for group in items(&rule["apiGroups"]) {
        for resource in items(&rule["resources"]) {
            for verb in items(&rule["verbs"]) {
                let (verb, group, resource) = (text(verb), text(group), text(resource));
                let of = |name: &Option<String>| Right {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    place,
                };
                rights.extend(names.iter().map(of));
            }
        }
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(word: &Value) -> String {
    word.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects() -> Vec<Value> {
        let subject = json!([{"kind": "ServiceAccount", "name": "a", "namespace": "system"}]);
        let role = |kind: &str, name: &str, rules: Value| json!({"kind": kind, "metadata": {"name": name, "namespace": "system"}, "rules": rules});
        let binding = |kind: &str, of: &str, name: &str, namespace: &str| json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}, "roleRef": {"kind": of, "name": name}, "subjects": subject});
        vec![
            role(
                "ClusterRole",
                "all",
                json!([{"apiGroups": ["", "apps"], "resources": ["x"], "verbs": ["get", "list"]}]),
            ),
            binding("ClusterRoleBinding", "ClusterRole", "all", ""),
            role(
                "Role",
                "own",
                json!([{"apiGroups": ["c"], "resources": ["leases"], "resourceNames": ["one"], "verbs": ["update"]}]),
            ),
            binding("RoleBinding", "Role", "own", "system"),
            role(
                "ClusterRole",
                "there",
                json!([{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]),
            ),
            binding("RoleBinding", "ClusterRole", "there", "models"),
            role(
                "ClusterRole",
                "view",
                json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
            ),
        ]
    }

    fn rights() -> BTreeSet<Right> {
        granted(&objects(), ("system", "a"))
    }

    fn request(what: [&str; 3], namespace: Option<&str>, name: &str) -> Request {
        let [verb, group, resource] = what.map(str::to_owned);
        Request {
            account: "system:a".to_owned(),
            verb,
            group,
            resource,
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            refused: None,
        }
    }

    #[test]
    fn rights_are_those_of_bound_roles_where_they_are_bound() {
        let texts: Vec<String> = rights().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "get pods/log, in other namespaces",
                "get x",
                "get x.apps",
                "list x",
                "list x.apps",
                "update leases.c one, in its own namespace",
            ]
        );
        assert_eq!(granted(&objects(), ("models", "a")), BTreeSet::new());
    }

    #[test]
    fn what_is_used_and_nothing_else_differs_in_nothing() {
        let requests = BTreeSet::from([
            request(["get", "", "pods/log"], Some("models"), "p"),
            request(["get", "", "x"], None, "p"),
            request(["get", "apps", "x"], Some("models"), "p"),
            request(["list", "", "x"], Some("system"), "p"),
            request(["list", "apps", "x"], None, "p"),
            request(["update", "c", "leases"], Some("system"), "one"),
        ]);
        assert_eq!(difference(&rights(), &requests), Difference::default());
    }

    #[test]
    fn each_way_to_differ_is_found() {
        let one = BTreeSet::from([rights().last().unwrap().clone()]);
        // Another object, another namespace, another verb, another group.
        let others = BTreeSet::from([
            request(["update", "c", "leases"], Some("system"), "two"),
            request(["update", "c", "leases"], Some("models"), "one"),
            request(["get", "c", "leases"], Some("system"), "one"),
            request(["update", "d", "leases"], Some("system"), "one"),
        ]);
        let found = difference(&one, &others);
        assert_eq!((found.refused.len(), found.uncovered.len(), found.unused.len()), (0, 4, 1));
        let refused = |verb| {
            let request = request([verb, "c", "leases"], Some("system"), "one");
            Request { refused: Some("no".to_owned()), ..request }
        };
        // What is granted was refused by a server that did not know of it yet, and is not used by that.
        let found = difference(&one, &BTreeSet::from([refused("update"), refused("delete")]));
        assert_eq!((found.refused, found.uncovered), (vec![refused("delete")], Vec::new()));
        assert_eq!(found.unused.len(), 1);
    }

    #[test]
    fn a_role_that_is_bound_to_another_grants_nothing() {
        let mut objects = objects();
        objects[1]["subjects"][0]["name"] = "b".into();
        let rights = granted(&objects, ("system", "a"));
        assert!(!rights.iter().any(|right| right.resource == "x"), "{rights:?}");
    }
}
