//! Traces: a call's stages, as a collector hears of them.

use std::{ffi::OsString, fs, path::Path};

use embark_sidecar::pb::client::EmbedStreamRequest;
use embark_tests::{
    Authority, Manifest, Sidecar,
    authority::Subject,
    collector::Collector,
    sidecar::{Options, request, until},
};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use tokio::task::JoinSet;
use tonic::{
    Request,
    transport::{Identity, Server, ServerTlsConfig},
};

/// A sidecar whose traces go there, without delay.
async fn serve(folder: &Path, manifest: &Manifest, collector: &str) -> Sidecar {
    serve_with(&Options::new(folder, manifest), collector, &[]).await
}

/// The same, with further variables of its environment.
async fn serve_with(options: &Options, collector: &str, variables: &[&str]) -> Sidecar {
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT={collector}");
    let wrapper = [&["env", &endpoint, "OTEL_BSP_SCHEDULE_DELAY=50"], variables].concat();
    let wrapper = wrapper.into_iter().map(OsString::from).collect();
    Sidecar::start(&Options { wrapper, ..options.clone() }).await
}

/// A client's span: its trace, and that it is the third span of it.
fn traceparent<T>(message: T, trace: u128, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{trace:032x}-{:016x}-{flags}", 3);
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    request
}

fn number(span: &Span, key: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(value) => Some(*value),
        _ => None,
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap()
}

const EMBED: &str = "embark.v1.EmbeddingService/Embed";

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_on_through_the_queue() {
    let (collector, address) = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path(), &Manifest::tiny("tiny"), &address).await;
    let mut client = sidecar.embeddings().await;
    client.embed(traceparent(request(&["a", "b"]), 7, "01")).await.unwrap();
    let stages = ["disk", "prepare", "queue", "inference"];
    let spans = collector.wait_for(7, &[&[EMBED], &stages[..]].concat()).await;
    let call = named(&spans, EMBED);
    assert_eq!(call.parent_span_id, 3_u64.to_be_bytes());
    assert_eq!(call.kind(), SpanKind::Server);
    assert_eq!((number(call, "embark.items"), number(call, "embark.hits")), (Some(2), Some(0)));
    assert_eq!(number(call, "rpc.grpc.status_code"), Some(0));
    for stage in stages {
        let span = named(&spans, stage);
        assert_eq!(span.parent_span_id, call.span_id, "{stage}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{stage}");
        assert!(span.start_time_unix_nano >= call.start_time_unix_nano, "{stage} began before");
    }
    let (queue, run) = (named(&spans, "queue"), named(&spans, "inference"));
    assert!(queue.end_time_unix_nano <= run.start_time_unix_nano + 1_000_000);

    client.embed(traceparent(request(&["a", "b", ""]), 8, "01")).await.unwrap();
    let spans = collector.wait_for(8, &[EMBED]).await;
    assert_eq!((number(&spans[0], "embark.hits"), spans.len()), (Some(2), 1), "the third failed");
    client.embed(traceparent(request(&[""]), 9, "01")).await.unwrap_err();
    let spans = collector.wait_for(9, &[EMBED]).await;
    assert_eq!(number(&spans[0], "rpc.grpc.status_code"), Some(3), "INVALID_ARGUMENT");
    let said = spans[0].attributes.iter().find(|attribute| attribute.key == "embark.error");
    assert!(format!("{said:?}").contains("items[0]"), "{said:?}");

    // Who does not sample is not sampled; and a stream's batches are calls of their own.
    client.embed(traceparent(request(&["c"]), 10, "00")).await.unwrap();
    let batch = EmbedStreamRequest { id: 1, request: Some(request(&["d"])) };
    let stream = tokio_stream::iter([batch]);
    let mut answers =
        client.embed_stream(traceparent(stream, 11, "01")).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    collector.wait_for(11, &["embark.v1.EmbeddingService/EmbedStream", "inference"]).await;
    assert_eq!(collector.of(10), []);
    assert!(collector.services.lock().contains("service.name=embark-sidecar"));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_share_a_run_link_to_each_other() {
    let (collector, address) = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::tiny("tiny")
        .with("/spec/batching", serde_json::json!({"maxDelay": "300ms", "maxDuration": "1s"}));
    let sidecar = serve(folder.path(), &manifest, &address).await;
    let linked = async |round: u128| {
        let mut calls = JoinSet::new();
        for trace in [round, round + 1] {
            let mut client = sidecar.embeddings().await;
            let asked = traceparent(request(&[&format!("text {trace}")]), trace, "01");
            calls.spawn(async move { drop(client.embed(asked).await.unwrap()) });
        }
        calls.join_all().await;
        let spans = collector.wait_for(round, &["inference"]).await;
        let run = named(&spans, "inference").clone();
        number(&run, "embark.batch.items") == Some(2)
            && run.links.iter().any(|link| link.trace_id == (round + 1).to_be_bytes())
    };
    // On a busy machine one may come too late for the other's run.
    let mut round = 100;
    until("two calls share a run", async || {
        round += 2;
        linked(round).await
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_may_speak_tls_and_the_environment_says_whose_traces_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca").unwrap();
    let hosts = ["127.0.0.1"];
    let subject =
        Subject { name: "collector", common_name: "collector", group: None, hosts: &hosts };
    authority.issue(subject).unwrap();
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let identity = Identity::from_pem(read("collector.crt"), read("collector.key"));
    let tls = ServerTlsConfig::new().identity(identity);
    let server = Server::builder().tls_config(tls).unwrap();
    let (collector, address) = Collector::start_by(server).await;
    let trusts = format!("SSL_CERT_FILE={}", folder.path().join("ca.crt").display());
    let named = "OTEL_RESOURCE_ATTRIBUTES=service.name=ours,service.instance.id=one";
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = serve_with(&options, &format!("https://{address}"), &[&trusts, named]).await;
    let mut client = sidecar.embeddings().await;
    client.embed(traceparent(request(&["a"]), 5, "01")).await.unwrap();
    collector.wait_for(5, &[EMBED]).await;
    let services = collector.services.lock().clone();
    assert!(services.contains("service.name=ours"), "{services:?}");
    assert!(services.contains("service.instance.id=one"), "{services:?}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_traces_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path(), &Manifest::tiny("tiny"), "http://127.0.0.1:9").await;
    sidecar.embed(&["a"]).await;
    sidecar.wait_for_line_with("traces cannot be sent, and are lost until they can").await;
    assert!(sidecar.metric("embark_trace_export_failures_total", &[]).await > 0.5);
    assert_eq!(sidecar.embed(&["a"]).await.len(), 1);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_and_what_is_no_address_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    options.wrapper = [
        "env",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    ]
    .map(OsString::from)
    .to_vec();
    let ended = Sidecar::fail(&options).await;
    options.wrapper[1] = "OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:4317".into();
    let nowhere = Sidecar::fail(&options).await;
    let wants = "OTEL_EXPORTER_OTLP_ENDPOINT: \"127.0.0.1:4317\" is no address; it must begin with http:// or https://";
    assert!(nowhere.code() == 2 && nowhere.log.contains(wants), "{}", nowhere.log);
    let said = "OTEL_EXPORTER_OTLP_PROTOCOL: \"http/protobuf\" is not supported; it must be grpc";
    assert!(ended.code() == 2 && ended.log.contains(said), "{}", ended.log);
}
