use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::v1alpha1::EmbeddingModelSpec;

fn good() -> Value {
    let digest = "0".repeat(64);
    json!({
        "model": {
            "source": {"uri": "builtin://tiny/model.onnx", "sha256": digest},
            "output": {"dimensions": 4},
        },
        "input": {"text": {"tokenizer": {"uri": "builtin://tiny/tokenizer.json", "sha256": digest}}},
    })
}

fn told(spec: &Value) -> Vec<String> {
    check_spec(spec).iter().map(ToString::to_string).collect()
}

/// What the schema of a node says is there when a manifest says nothing, as the API server fills it in.
fn fill(value: &mut Value, node: &Value) {
    if let (Some(fields), Some(properties)) =
        (value.as_object_mut(), node["properties"].as_object())
    {
        for (name, child) in properties {
            if let Some(default) = child.get("default").filter(|_| !fields.contains_key(name)) {
                fields.insert(name.clone(), default.clone());
            }
            if let Some(field) = fields.get_mut(name) {
                fill(field, child);
            }
        }
    }
    if let (Some(items), Some(child)) = (value.as_array_mut(), node.get("items")) {
        items.iter_mut().for_each(|item| fill(item, child));
    }
}

fn spec_schema() -> Value {
    let crd: Value = serde_saphyr::from_str(CRD_YAML).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn each_node(node: &Value, visit: &mut impl FnMut(&Value)) {
    visit(node);
    for child in node["properties"].as_object().into_iter().flat_map(Map::values) {
        each_node(child, visit);
    }
    for child in ["items", "additionalProperties"].iter().filter_map(|name| node.get(name)) {
        each_node(child, visit);
    }
}

#[test]
fn the_defaults_of_the_schema_are_those_that_resolve_fills_in() {
    let digest = "0".repeat(64);
    let artifact = json!({"uri": "https://example.com/f", "sha256": digest});
    let secure = json!({"tls": {"secretName": "t", "clientCARef": {"name": "c"}}, "tokenSecretRef": {"name": "t"}});
    let specs = [
        good(),
        json!({"model": good()["model"], "input": {"image": {"width": 1, "height": 1, "urls": {}}},
            "autoscaling": {"maxReplicas": 2}, "endpoint": secure, "networkPolicy": {}}),
        json!({"model": good()["model"], "input": {"tensor": {"shape": [1]}}, "cache": {}, "batching": {"queue": {}}}),
        json!({"model": good()["model"], "input": {"categorical": {"vocabulary": artifact}},
            "cache": {"memory": {}, "disk": {}, "defaultVector": {}}, "disruptionBudget": {}}),
    ];
    for spec in specs {
        let mut filled = spec.clone();
        fill(&mut filled, &spec_schema());
        let typed: crate::v1alpha1::EmbeddingModelSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), filled);
    }
}

#[test]
fn every_pattern_of_the_schema_compiles() {
    let mut patterns = 0;
    each_node(&spec_schema(), &mut |node| {
        if let Some(pattern) = node["pattern"].as_str() {
            patterns += 1;
            assert!(Regex::new(pattern).is_ok(), "{pattern}");
        }
    });
    assert!(patterns > 10);
}

#[test]
fn every_pattern_in_words_is_a_pattern_of_the_schema() {
    let mut known = Vec::new();
    each_node(&spec_schema(), &mut |node| {
        known.extend(node["pattern"].as_str().map(str::to_owned))
    });
    for (pattern, words) in PATTERNS_IN_WORDS {
        assert!(known.iter().any(|known| known == pattern), "{words}");
    }
}

#[test]
fn every_list_and_text_of_ours_is_bounded() {
    fn walk(node: &Value, path: &str) {
        let kubernetes = ["behavior", "metrics", "from", "env", "affinity", "tolerations"];
        if path.rsplit('.').next().is_some_and(|name| kubernetes.contains(&name)) {
            return;
        }
        let bounded = |name: &str| node.get(name).is_some();
        match node["type"].as_str() {
            Some("string") => assert!(bounded("maxLength") || bounded("enum"), "{path}"),
            Some("array") => assert!(bounded("maxItems"), "{path}"),
            Some("integer" | "number") => {
                assert!(bounded("minimum") && bounded("maximum"), "{path}")
            }
            _ => {}
        }
        for (name, child) in node["properties"].as_object().into_iter().flatten() {
            walk(child, &join(path, name));
        }
        if node["type"] == "array" && !path.starts_with("pod.") {
            walk(&node["items"], &format!("{path}[]"));
        }
    }
    for (name, child) in spec_schema()["properties"].as_object().unwrap() {
        if name != "pod" {
            walk(child, name);
        }
    }
}

#[test]
fn every_field_of_ours_is_described() {
    let described = |node: &Value| {
        let fields = node["properties"].as_object().into_iter().flatten();
        for (name, child) in fields {
            assert!(child["description"].as_str().is_some_and(|text| text.len() > 10), "{name}");
        }
    };
    let spec = spec_schema();
    described(&spec);
    for name in ["model", "input", "cache", "batching", "endpoint", "disruptionBudget", "pod"] {
        described(&spec["properties"][name]);
    }
    described(&spec["properties"]["input"]["properties"]["text"]);
    described(&spec["properties"]["selfTest"]["items"]);
}

#[test]
fn a_good_spec_has_no_errors() {
    assert_eq!(told(&good()), Vec::<String>::new());
}

#[test]
fn a_whole_number_may_be_written_with_a_fraction_of_zero() {
    let mut spec = good();
    spec["replicas"] = json!(2.0);
    assert_eq!(told(&spec), Vec::<String>::new());
    spec["replicas"] = json!(2.5);
    assert_eq!(told(&spec), ["spec.replicas: 2.5 must be a whole number"]);
}

#[test]
fn a_null_in_a_list_is_an_error_and_elsewhere_counts_as_absent() {
    let mut spec = good();
    spec["cache"] = json!({"ttl": null});
    assert_eq!(told(&spec), Vec::<String>::new());
    spec["selfTest"] = json!([null]);
    assert_eq!(told(&spec), ["spec.selfTest[0]: null must be a block of fields"]);
}

#[test]
fn lengths_are_counted_in_characters() {
    let mut spec = good();
    spec["input"]["text"]["prompts"] = json!([{"name": "q", "prefix": "ä".repeat(2048)}]);
    assert_eq!(told(&spec), Vec::<String>::new());
}

#[test]
fn an_unknown_field_that_resembles_none_lists_all() {
    let mut spec = good();
    spec["cache"] = json!({"memory": {"zzz": 1}});
    assert_eq!(told(&spec), ["spec.cache.memory.zzz: is not a known field; known are sizeLimit"]);
}

#[test]
fn a_value_of_another_type_is_told_all_that_its_text_must_be() {
    for (pointer, value, sentence) in [
        ("ttl", json!(24), "24 must be a duration with its unit, such as 24h, 1h30m or 50ms"),
        ("ttl", json!("24"), "\"24\" must be a duration with its unit, such as 24h, 1h30m or 50ms"),
        ("ttl", json!(true), "true must be a duration with its unit, such as 24h, 1h30m or 50ms"),
        ("memory.sizeLimit", json!(1.5), "1.5 must be a quantity such as 64Mi or 2Gi"),
    ] {
        let mut spec = good();
        spec["cache"] = match pointer.split_once('.') {
            Some((block, field)) => json!({ block: { field: value } }),
            None => json!({ pointer: value }),
        };
        assert_eq!(told(&spec), [format!("spec.cache.{pointer}: {sentence}")]);
    }
    let mut spec = good();
    let vectors = json!({"input": {"text": "a"}, "vector": [1], "minCosine": 0.5});
    spec["selfTest"] = json!([vectors]);
    let field = "spec.selfTest[0].minCosine";
    let sentence = "must be a number from -1 to 1 (put it in quotes)";
    assert_eq!(told(&spec), [format!("{field}: 0.5 {sentence}")]);
}

#[test]
fn a_digest_of_another_length_is_told_the_length_that_it_has() {
    let digest = "0".repeat(64);
    for (text, length) in [
        (format!("sha256:{digest}"), "71 characters"),
        (digest[..63].to_owned(), "63 characters"),
        ("0".to_owned(), "1 character"),
    ] {
        let mut spec = good();
        spec["model"]["source"]["sha256"] = json!(text);
        let told = told(&spec);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with(&format!(" has {length}, it must be 64 hex digits")), "{told:?}");
    }
}

#[test]
fn no_more_than_64_errors_are_told() {
    let mut spec = good();
    let values = vec![json!("x"); 16_384];
    spec["cache"] = json!({"defaultVector": {"type": "Values", "values": values}});
    assert_eq!(told(&spec).len(), MAX_ERRORS);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let names = "(model|input|text|tensor|cache|ttl|prompts|name|selfTest|pod|env|[a-z]{1,6})";
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(value in any_json()) {
        let _ = check_spec(&value);
        let _ = crate::rules::broken(&json!({"metadata": {"name": "x"}, "spec": value}));
    }

    /// Whatever passes the schema is a spec that the types can hold, once nulls are gone, as they are before it is read.
    #[test]
    fn what_passes_can_be_read(value in any_json(), at in 0_usize..5) {
        let mut spec = good();
        let field = ["cache", "batching", "pod", "selfTest", "autoscaling"][at];
        spec[field] = value;
        if check_spec(&spec).is_empty() && !spec[field].is_null() {
            let spec = crate::manifest::without_nulls(spec);
            prop_assert!(serde_json::from_value::<EmbeddingModelSpec>(spec).is_ok());
        }
    }
}
