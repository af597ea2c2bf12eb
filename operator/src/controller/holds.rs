//! Whether a child as the cluster has it is what was built: the API server writes the same thing in its own words, and
//! others may own what we do not set. Pure.

use embark_crds::resolve::quantity;
use serde_json::Value;

/// Maps that select by all that is in them.
const SELECTORS: [&str; 2] = ["selector", "matchLabels"];
/// Lists of maps that others may add to: the API server merges them by a key. Any other is one value.
const SHARED: [&str; 9] = [
    "containers",
    "env",
    "imagePullSecrets",
    "initContainers",
    "ownerReferences",
    "ports",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
];
/// Maps of which the API server keeps nothing when they are empty. Of others it does: an empty selector selects all.
const DROPPED: [&str; 4] = ["limits", "matchLabels", "nodeSelector", "requests"];
/// Fields that are quantities, or maps of such.
const QUANTITIES: [&str; 6] =
    ["averageValue", "divisor", "limits", "requests", "sizeLimit", "tolerance"];

/// How a value is compared, by what it stands in.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    /// The field that it is the value of, or an item of.
    field: &'a str,
    /// It stands in a list that is one value, so that lists in it are.
    is_whole: bool,
    is_quantity: bool,
}

/// Whether `live` has every field of `desired`. Maps and lists that are merged may hold more, which others own, and
/// defaults may stand between; other lists and selectors are one value each.
pub(super) fn holds(live: &Value, desired: &Value) -> bool {
    value_holds(live, desired, Place::default())
}

// === impl Place ===

impl<'a> Place<'a> {
    fn of(self, field: &'a str) -> Place<'a> {
        // The same word is a text in an environment variable.
        let is_target = self.field == "target" && field == "value";
        Place {
            field,
            is_whole: self.is_whole,
            is_quantity: self.is_quantity || is_target || QUANTITIES.contains(&field),
        }
    }
}

// === free functions ===

fn value_holds(live: &Value, desired: &Value, place: Place<'_>) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let is_selector =
                SELECTORS.contains(&place.field) && !desired.contains_key("matchLabels");
            if is_selector && live.len() != desired.len() {
                return false;
            }
            desired.iter().all(|(field, desired)| match live.get(field) {
                Some(live) => value_holds(live, desired, place.of(field)),
                None => is_dropped(field, desired),
            })
        }
        (Value::Array(live), Value::Array(desired)) => list_holds(live, desired, place),
        (Value::String(live), Value::String(desired)) if place.is_quantity => {
            let (live_nanos, nanos) = (quantity::nanos(live), quantity::nanos(desired));
            live == desired || nanos.is_some() && live_nanos == nanos
        }
        (live, desired) => live == desired,
    }
}

fn list_holds(live: &[Value], desired: &[Value], place: Place<'_>) -> bool {
    if !place.is_whole && SHARED.contains(&place.field) {
        let has = |desired| live.iter().any(|live| value_holds(live, desired, place));
        return desired.iter().all(has);
    }
    let place = Place { is_whole: true, ..place };
    let mut pairs = live.iter().zip(desired);
    live.len() == desired.len() && pairs.all(|(live, desired)| value_holds(live, desired, place))
}

/// Whether the API server leaves out a field with such a value.
fn is_dropped(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && DROPPED.contains(&field),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_add_does_not_count_and_what_they_change_does() {
        let desired = json!({ "a": { "env": [{ "name": "x", "value": "1" }] }, "c": "d" });
        let mut live = desired.clone();
        live["a"]["default"] = true.into();
        live["a"]["env"][0]["default"] = true.into();
        live["a"]["env"].as_array_mut().unwrap().insert(0, json!({ "name": "y" }));
        assert!(holds(&live, &desired));
        for change in ["/a/env/1/value", "/c"] {
            let mut edited = live.clone();
            *edited.pointer_mut(change).unwrap() = "edited".into();
            assert!(!holds(&edited, &desired), "{change}");
        }
        live["a"]["env"] = json!([]);
        assert!(!holds(&live, &desired));
        for (live, desired) in [
            (json!({"args": ["a", "b"]}), json!({"args": ["a"]})),
            (json!({"args": ["b", "a"]}), json!({"args": ["a", "b"]})),
            (json!({"selector": {"a": "b", "c": "d"}}), json!({"selector": {"a": "b"}})),
        ] {
            assert!(!holds(&live, &desired), "{live}");
        }
        let labels = json!({"selector": {"matchLabels": {"a": "b"}}});
        assert!(holds(&labels, &labels));
        let more = json!({"selector": {"matchLabels": {"a": "b", "c": "d"}}});
        assert!(!holds(&more, &labels));
    }

    #[test]
    fn list_that_is_one_value_is_that_list_and_no_other() {
        let rule =
            |ports: Value| json!({"ingress": [{"from": [{"podSelector": {}}], "ports": ports}]});
        let desired = rule(json!([{"port": 8081}]));
        assert!(holds(&rule(json!([{"port": 8081, "protocol": "TCP"}])), &desired));
        assert!(!holds(&rule(json!([{"port": 8081}, {"port": 1}])), &desired));
        assert!(!holds(&rule(json!([])), &desired));
        let mut open = desired.clone();
        open["ingress"].as_array_mut().unwrap().push(json!({}));
        assert!(!holds(&open, &desired));
        // A peer that selects nothing less than all is another than none.
        let mut none = desired.clone();
        none["ingress"][0]["from"][0] = json!({});
        assert!(!holds(&none, &desired));
    }

    #[test]
    fn quantities_are_compared_as_such_and_texts_as_texts() {
        for (live, desired) in [
            (json!({"limits": {"cpu": "500m"}}), json!({"limits": {"cpu": "0.5"}})),
            (json!({"requests": {"memory": "1Gi"}}), json!({"requests": {"memory": "1024Mi"}})),
            (
                json!({"emptyDir": {"sizeLimit": "1Gi"}}),
                json!({"emptyDir": {"sizeLimit": "1024Mi"}}),
            ),
            (
                json!({"target": {"averageValue": "1500m"}}),
                json!({"target": {"averageValue": "1.5"}}),
            ),
            (json!({"target": {"value": "1k"}}), json!({"target": {"value": "1000"}})),
        ] {
            assert!(holds(&live, &desired), "{live} {desired}");
        }
        for (live, desired) in [
            (json!({"limits": {"cpu": "501m"}}), json!({"limits": {"cpu": "0.5"}})),
            (json!({"limits": {"cpu": "a"}}), json!({"limits": {"cpu": "b"}})),
            (json!({"env": [{"value": "1k"}]}), json!({"env": [{"value": "1000"}]})),
        ] {
            assert!(!holds(&live, &desired), "{live} {desired}");
        }
    }

    #[test]
    fn what_the_api_server_leaves_out_is_not_missing() {
        for (live, desired) in [
            (json!({"env": [{"name": "a"}]}), json!({"env": [{"name": "a", "value": ""}]})),
            (json!({"resources": {}}), json!({"resources": {"claims": [], "limits": {}}})),
            (json!({"podSelector": {}}), json!({"podSelector": {"matchLabels": {}}})),
        ] {
            assert!(holds(&live, &desired), "{live} {desired}");
        }
        for (live, desired) in [
            (json!({}), json!({"automountServiceAccountToken": false})),
            (json!({}), json!({"stabilizationWindowSeconds": 0})),
            (json!({}), json!({"namespaceSelector": {}})),
        ] {
            assert!(!holds(&live, &desired), "{live} {desired}");
        }
    }
}
