//! Bearer tokens: who has none is not let in, but for health and reflection.

use std::{fs, path::Path};

use embark_sidecar::pb::client::{
    EmbedStreamRequest, InvalidateRequest, invalidate_request::Scope,
};
use embark_tests::{
    Manifest, Sidecar,
    programs::embark,
    refusal,
    sidecar::{Options, request, until},
};
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

const FIRST: &str = "first-token-0123456789";
const SECOND: &str = "second-token-0123456789";

async fn serve(folder: &Path) -> Sidecar {
    fs::write(folder.join("token"), format!("{FIRST}\n")).unwrap();
    let manifest = Manifest::tiny("tiny").with("/spec/cache/allowInvalidation", true);
    let mut options = Options::new(folder, &manifest);
    options.arguments = vec!["--token-file".into(), folder.join("token").into_os_string()];
    Sidecar::start(&options).await
}

fn with<T>(message: T, header: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !header.is_empty() {
        let value: AsciiMetadataValue = header.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

async fn embed(sidecar: &Sidecar, header: &str) -> Result<usize, Status> {
    let answer = sidecar.embeddings().await.embed(with(request(&["a"]), header)).await?;
    Ok(answer.into_inner().results.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_shows_a_token_but_those_that_probes_and_tools_make_first() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path()).await;
    for header in [format!("Bearer {FIRST}"), format!("bearer {FIRST}")] {
        assert_eq!(embed(&sidecar, &header).await.unwrap(), 1);
    }
    for (header, what) in [
        (String::new(), "is missing"),
        (format!("Bearer {SECOND}"), "has a token that the server does not know"),
        (format!("Bearer {FIRST}x"), "has a token that the server does not know"),
        (format!("Basic {FIRST}"), "is not a bearer token"),
    ] {
        let refused = embed(&sidecar, &header).await.unwrap_err();
        refusal::of_field(&refused, Code::Unauthenticated, "UNAUTHENTICATED", "authorization");
        assert!(refused.message().contains(what), "{refused}");
        assert!(!format!("{refused:?}").contains("0123456789"), "no token is told: {refused:?}");
    }
    let stream = tokio_stream::iter([EmbedStreamRequest::default()]);
    let refused = sidecar.embeddings().await.embed_stream(stream).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let all = InvalidateRequest { scope: Some(Scope::All(true)), ..Default::default() };
    let refused = sidecar.cache().await.invalidate(all.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let token = format!("Bearer {FIRST}");
    assert!(sidecar.cache().await.invalidate(with(all, &token)).await.is_ok());

    let check = HealthCheckRequest { service: "tiny".to_owned() };
    assert!(HealthClient::new(sidecar.channel().await).check(check).await.is_ok());
    let list = Some(MessageRequest::ListServices(String::new()));
    let ask = ServerReflectionRequest { message_request: list, ..Default::default() };
    let mut reflection = ServerReflectionClient::new(sidecar.channel().await);
    let answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await;
    assert!(answers.unwrap().into_inner().message().await.unwrap().is_some());

    assert!(sidecar.metric("embark_unauthenticated_requests_total", &[]).await > 5.5);
    assert_eq!(sidecar.status().await["endpoint"]["token"], true);
    let told = sidecar.get("/config").await.1 + &sidecar.log();
    assert!(!told.contains("0123456789"), "no token is told");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_replaced_without_a_call_being_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path()).await;
    let file = folder.path().join("token");
    let admits = async |token: &str| embed(&sidecar, &format!("Bearer {token}")).await.is_ok();
    fs::write(&file, format!("{SECOND}\n{FIRST}\n")).unwrap();
    until("both are known", async || admits(SECOND).await).await;
    assert!(admits(FIRST).await);
    fs::write(&file, SECOND).unwrap();
    until("the first is not any more", async || !admits(FIRST).await).await;
    assert!(admits(SECOND).await);
    fs::write(&file, "no token\n").unwrap();
    until("a bad file is told of", async || {
        sidecar.status().await["endpoint"]["message"].as_str().unwrap_or_default() != ""
    })
    .await;
    assert!(admits(SECOND).await, "and changes nothing");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_the_token_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path()).await;
    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "  \n").unwrap();
    let token = folder.path().join("token").display().to_string();
    let wrong = wrong.display().to_string();
    for command in [
        &["embed", "--address", sidecar.grpc(), "a"][..],
        &["invalidate", "--address", sidecar.grpc(), "--all"],
        &["invalidate", "--all-pods", sidecar.grpc(), "--all"],
        &["bench", "--address", sidecar.grpc(), "--duration", "100ms"],
    ] {
        let with = [command, &["--token-file", &token]].concat();
        let finished = embark(&with, b"").await;
        assert_eq!(finished.code, 0, "{command:?}: {finished:?}");
        let finished = embark(command, b"").await;
        let said = finished.errors.clone() + &finished.output;
        assert!(finished.code == 1 && said.contains("UNAUTHENTICATED"), "{finished:?}");
    }
    let arguments = ["embed", "--address", sidecar.grpc(), "--token-file", &wrong, "a"];
    let finished = embark(arguments, b"").await;
    assert!(finished.errors.contains("has no token of visible ASCII characters"), "{finished:?}");
    sidecar.stop().await;
}
