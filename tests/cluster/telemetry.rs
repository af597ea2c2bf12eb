//! What the operator says of itself: metrics, its log's level, spans.

use embark_tests::{
    collector::Collector,
    programs,
    sidecar::{http_put, until},
};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, trace::v1::Span};
use serde_json::json;

use super::operator::{apply_quickstart, quickstart, settled, start};

#[tokio::test]
async fn metrics_tell_of_models_requests_and_the_process() {
    let (namespace, alone) = start("metrics").await;
    apply_quickstart(&namespace).await;
    let mut refused = quickstart(&json!({"model": {"source": {"uri": "file://model.onnx"}}}));
    refused["metadata"]["name"] = "refused".into();
    namespace.apply(&refused).await.unwrap();
    settled(&namespace).await;
    for status in ["True", "False"] {
        let labels = format!("{{condition=\"Accepted\",status=\"{status}\"}}");
        until("models are counted by their conditions", async || {
            // Of every namespace: those of other tests may be on their way out.
            let all =
                "--output=jsonpath={.items[*].status.conditions[?(@.type=='Accepted')].status}";
            let all = namespace.plane().kubectl(["get", "embm", "--all-namespaces", all]).await;
            let expected = all.split_whitespace().filter(|found| *found == status).count();
            let counted = sample(&alone.operator.get("/metrics").await.1, "models", &labels);
            expected > 0 && counted == Some(expected.to_string())
        })
        .await;
    }
    until("no model waits", async || {
        alone.operator.metric("embark_operator_waiting_models").await < 0.5
    })
    .await;
    for (verb, code) in [("watch", "200"), ("patch", "201"), ("update", "200"), ("get", "404")] {
        let labels = format!("{{verb=\"{verb}\",code=\"{code}\"}}");
        until(&format!("requests are counted as {labels}"), async || {
            let text = alone.operator.get("/metrics").await.1;
            sample(&text, "api_requests_total", &labels).is_some()
        })
        .await;
    }
    let text = alone.operator.get("/metrics").await.1;
    assert!(!text.contains("quickstart") && !text.contains(namespace.name()), "{text}");
    assert!(alone.operator.metric("process_resident_memory_bytes").await > 1e6);
    assert!(alone.operator.metric("process_start_time_seconds").await > 1.6e9);
    alone.stop().await;
}

#[tokio::test]
async fn level_of_the_log_is_changed_while_the_operator_runs() {
    let (namespace, alone) = start("level").await;
    let operator = &alone.operator;
    operator.wait_for_line("\"leading\"").await;
    assert_eq!(operator.get("/log-level").await, (200, "info\n".to_owned()));
    let put = async |level: &str| http_put(operator.address(), "/log-level", level).await;
    let (code, sentence) = put("loud").await;
    let expected = "\"loud\" is not a level; it must be error, warn, info";
    assert!(code == 400 && sentence.starts_with(expected), "{sentence}");
    assert_eq!(operator.get("/log-level").await.1, "info\n", "a wrong one changes nothing");
    assert_eq!(put(&"x".repeat(5000)).await.0, 413);
    assert!(!operator.log().contains("\"applying\""));
    assert_eq!(put("embark_operator=debug,warn\n").await.0, 200);
    assert_eq!(operator.get("/log-level").await.1, "embark_operator=debug,warn\n");
    operator.wait_for_line("the level of the log was changed").await;
    apply_quickstart(&namespace).await;
    // Models that other tests have left are applied too.
    until("a line tells of the model that it is about", async || {
        operator.log().lines().filter(|line| line.contains("\"applying\"")).any(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["spans"]
                .as_array()
                .unwrap()
                .iter()
                .any(|span| span["model"] == "quickstart" && span["namespace"] == namespace.name())
        })
    })
    .await;
    alone.stop().await;
}

#[tokio::test]
async fn reconciles_are_traced_where_the_environment_names_a_collector() {
    let (namespace, alone) = start("traces").await;
    let (collector, address) = Collector::start().await;
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let traced = alone.operator.another_with("traced", &variables).await;
    let alone = alone.hand_over(traced).await;
    alone.operator.wait_for_line("traces are sent").await;
    apply_quickstart(&namespace).await;
    let of_ours = |span: &Span| attribute(span, "namespace").as_deref() == Some(namespace.name());
    until("a reconcile is told with its steps", async || {
        let spans = collector.spans.lock();
        spans.iter().filter(|span| span.name == "reconcile" && of_ours(span)).any(|reconcile| {
            let step = |name: &str| {
                spans
                    .iter()
                    .any(|span| span.name == name && span.parent_span_id == reconcile.span_id)
            };
            attribute(reconcile, "model").as_deref() == Some("quickstart")
                && attribute(reconcile, "reason").as_deref() == Some("Ok")
                && step("apply")
                && step("status")
        })
    })
    .await;
    let names: Vec<String> = collector.spans.lock().iter().map(|span| span.name.clone()).collect();
    let ours = ["reconcile", "apply", "status"];
    assert!(names.iter().all(|name| ours.contains(&name.as_str())), "{names:?}");
    assert!(collector.services.lock().contains("service.name=embark-operator"));
    alone.stop().await;
}

#[tokio::test]
async fn collector_that_is_away_costs_spans_alone_and_what_is_no_address_is_refused() {
    let (namespace, alone) = start("no-traces").await;
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let traced = alone.operator.another_with("traced", &variables).await;
    let alone = alone.hand_over(traced).await;
    apply_quickstart(&namespace).await;
    alone.operator.wait_for_line("traces cannot be sent, and are lost until they can").await;
    assert!(alone.operator.metric("embark_operator_trace_export_failures_total").await > 0.5);
    settled(&namespace).await;
    alone.stop().await;
    for (name, value, sentence) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "127.0.0.1:4317",
            "OTEL_EXPORTER_OTLP_ENDPOINT: \"127.0.0.1:4317\" is no address; it must begin with http:// or https://",
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/protobuf",
            "OTEL_EXPORTER_OTLP_PROTOCOL: \"http/protobuf\" is not supported; it must be grpc",
        ),
    ] {
        let mut operator = namespace.plane().command(programs::operator());
        operator.args(["run", "--sidecar-image=x", "--listen=127.0.0.1:0"]);
        operator.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env(name, value);
        let ended = programs::run(operator, b"").await;
        assert!(ended.code == 1 && ended.errors.contains(sentence), "{}", ended.errors);
    }
}

/// The value of a series of the operator's, by its labels in their order.
fn sample(text: &str, name: &str, labels: &str) -> Option<String> {
    let series = format!("embark_operator_{name}{labels} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned)
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(value) => Some(value.clone()),
        _ => None,
    }
}
