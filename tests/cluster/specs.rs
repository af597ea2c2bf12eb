//! The table of good and bad specs, judged by a real API server: the same verdict at the same field as `resolve`.

#[path = "../../crds/tests/specs/table.rs"]
#[expect(dead_code, reason = "an API server knows no target, and has words of its own")]
mod table;

use embark_tests::{
    cluster::{ControlPlane, Namespace},
    operator::apply_definition,
};
use kube::Client;
use serde_json::Value;

use self::table::{Row, Table, table};

/// An API server's verdict: every field that it blames; an empty one where it names none.
type Verdict = Result<(), Vec<String>>;

#[tokio::test]
async fn api_server_judges_every_row_as_resolve_does() {
    let plane = ControlPlane::shared().await;
    apply_definition(plane).await;
    let namespace = plane.namespace("specs").await;
    let client = plane.client().await;
    let Table { base, rows } = table();
    let (mut wrong, mut skipped) = (Vec::new(), Vec::new());
    for row in &rows {
        if row.judge.is_some() {
            skipped.push(row.name.as_str());
            continue;
        }
        let verdict = judge(&client, &namespace, &base, row).await;
        if let Some(sentence) = differs(row, &verdict) {
            wrong.push(format!("{}: {sentence}", row.name));
        }
    }
    println!("judged by resolve alone: {}", skipped.join("; "));
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows.len() - skipped.len() >= 100, "{} rows were judged", rows.len() - skipped.len());
}

async fn judge(client: &Client, namespace: &Namespace, base: &Value, row: &Row) -> Verdict {
    let new = table::model(base, &row.spec, &row.model);
    let path = format!("/apis/embark.dev/v1alpha1/namespaces/{}/embeddingmodels", namespace.name());
    let Some(old) = &row.old else {
        return send(client, "POST", &format!("{path}?{DRY}"), &new).await;
    };
    let old = table::model(base, old, &row.model);
    send(client, "POST", &format!("{path}?fieldValidation=Strict"), &old)
        .await
        .expect("it is good");
    let path = format!("{path}/{}", row.model);
    let verdict = send(client, "PATCH", &format!("{path}?{DRY}"), &{
        let mut whole = new;
        // What the new spec leaves out must go: a merge patch says so by null.
        for (name, value) in old["spec"].as_object().expect("a spec is an object") {
            nullify(&mut whole["spec"][name.as_str()], value);
        }
        whole
    })
    .await;
    send(client, "DELETE", &path, &Value::Null).await.expect("it was made above");
    verdict
}

/// Nothing is stored, and an unknown field is refused as kubectl asks for.
const DRY: &str = "dryRun=All&fieldValidation=Strict";

/// Sets every field to null that was there and is no more.
fn nullify(new: &mut Value, old: &Value) {
    match (new.is_null(), old) {
        (true, _) => *new = Value::Null,
        (false, Value::Object(old)) if new.is_object() => {
            for (name, old) in old {
                nullify(&mut new[name.as_str()], old);
            }
        }
        _ => {}
    }
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Verdict {
    let content =
        if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content);
    match client.request::<Value>(request.body(body).expect("a request")).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.iter().flat_map(|details| details.causes.clone());
            // It writes some with a point in front, and `<nil>` where it could not go on.
            let fields: Vec<String> = causes
                .map(|cause| cause.field.trim_start_matches('.').to_owned())
                .filter(|field| field != "<nil>")
                .collect();
            Err(if fields.is_empty() { quoted_fields(&status.message) } else { fields })
        }
        Err(error) => panic!("{path}: {error}"),
    }
}

/// The fields in a message: of a body that is not even decoded it says in words what is wrong.
fn quoted_fields(message: &str) -> Vec<String> {
    let quoted = message.split('"').skip(1).step_by(2);
    quoted.filter(|word| word.starts_with("spec.")).map(str::to_owned).collect()
}

/// How a verdict is not that of the table: it may blame fewer fields, and never others.
fn differs(row: &Row, verdict: &Verdict) -> Option<String> {
    match (verdict, row.errors.is_empty()) {
        (Ok(()), true) => None,
        (Ok(()), false) => Some("was accepted".to_owned()),
        (Err(fields), true) => Some(format!("was refused for {fields:?}")),
        (Err(fields), false) => {
            let expected: Vec<&str> = row.errors.iter().map(|error| error.field.as_str()).collect();
            let known = |field: &&String| expected.contains(&field.as_str());
            let named = fields.iter().filter(|field| !field.is_empty());
            let others: Vec<&String> = named.filter(|field| !known(field)).collect();
            let none = !fields.iter().any(|field| expected.contains(&field.as_str()));
            (none || !others.is_empty())
                .then(|| format!("blames {fields:?} instead of {expected:?}"))
        }
    }
}
