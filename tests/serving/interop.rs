//! Clients that share no code with the sidecar.

use std::process::Output;

use embark_tests::{Manifest, Sidecar, programs, sidecar::LIMIT};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_lists_the_services_and_gets_a_vector() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let listed = grpcurl(&[sidecar.grpc(), "list"]).await;
    let services: Vec<&str> = listed.lines().collect();
    for service in ["embark.v1.EmbeddingService", "embark.v1.CacheService", "grpc.health.v1.Health"]
    {
        assert!(services.contains(&service), "{listed}");
    }
    let described = grpcurl(&[sidecar.grpc(), "describe", "embark.v1.ItemResult"]).await;
    assert!(described.contains("repeated float vector = 1"), "{described}");

    let request = r#"{"model": "tiny", "items": [{"text": "The weather is lovely today."}]}"#;
    let method = "embark.v1.EmbeddingService/Embed";
    let reply = grpcurl(&["-d", request, sidecar.grpc(), method]).await;
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let vector = values(&reply["results"][0]["vector"]);
    let ours = sidecar.embed(&["The weather is lovely today."]).await;
    assert_eq!(vector, ours[0].vector);
    assert_eq!(reply["results"][0]["source"], "SOURCE_COMPUTED");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_shows_why_a_call_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let method = "embark.v1.EmbeddingService/Embed";
    let output = run(
        &programs::from_environment("EMBARK_TEST_GRPCURL"),
        &["-plaintext", sidecar.grpc(), method],
    )
    .await;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("InvalidArgument") && said.contains("items: 0 given"), "{said}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_gets_vectors_and_then_remembered_ones() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let texts = ["The weather is lovely today.", "naïve café ✓"];
    for source in ["SOURCE_COMPUTED", "SOURCE_HIT_MEMORY"] {
        let lines = python(&sidecar, &texts).await;
        assert_eq!(lines.len(), texts.len());
        for (text, line) in texts.iter().zip(&lines) {
            assert_eq!(
                (&line["text"], &line["source"]),
                (&Value::from(*text), &Value::from(source))
            );
            assert_eq!(values(&line["vector"]), sidecar.embed(&[text]).await[0].vector);
        }
    }
    sidecar.stop().await;
}

async fn grpcurl(arguments: &[&str]) -> String {
    let arguments = [&["-plaintext"], arguments].concat();
    printed(run(&programs::from_environment("EMBARK_TEST_GRPCURL"), &arguments).await)
}

async fn python(sidecar: &Sidecar, texts: &[&str]) -> Vec<Value> {
    let script = programs::root().join("examples/clients/python/embed.py");
    let script = script.to_str().unwrap();
    let arguments = [&[script, "--address", sidecar.grpc(), "--model", "tiny"], texts].concat();
    let printed = printed(run(&programs::from_environment("EMBARK_TEST_PYTHON"), &arguments).await);
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn run(program: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    timeout(LIMIT, command.output()).await.expect("the client ends").expect("the client starts")
}

fn printed(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ended with {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn values(list: &Value) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "they are f32 values in decimals")]
    let value = |number: &Value| number.as_f64().unwrap() as f32;
    list.as_array().unwrap().iter().map(value).collect()
}
