//! What changes while a model is served: its policy, which its pods follow as they are, and its contract, for which they are
//! replaced under their callers.

use embark_tests::{
    cluster::{Namespace, Node},
    sidecar::{Embeddings, embeddings, request_of, until},
};
use serde_json::Value;
use tonic::Code;

use super::quickstart::{namespace, quickstart, ready};

#[tokio::test]
async fn changed_policy_is_followed_by_the_pods_that_there_are() {
    let namespace = namespace("policy").await;
    let mut model = quickstart();
    namespace.apply(&model).await.unwrap();
    ready(&namespace).await;
    until("the pods follow the policy", async || follows(&status(&namespace).await)).await;
    let (before, pods) = (status(&namespace).await, pods(&namespace).await);
    model["spec"]["cache"]["ttl"] = "1h".into();
    namespace.apply(&model).await.unwrap();
    until("the pods follow the changed policy", async || {
        let now = status(&namespace).await;
        now["policy"]["desiredHash"] != before["policy"]["desiredHash"] && follows(&now)
    })
    .await;
    assert_eq!(self::pods(&namespace).await, pods, "no pod was replaced or restarted");
}

#[tokio::test]
async fn hits_are_told_in_the_status() {
    let namespace = namespace("hits").await;
    namespace.apply(&quickstart()).await.unwrap();
    ready(&namespace).await;
    let mut client = client(&namespace).await;
    // One is computed, the others are hits.
    for _ in 0..10 {
        client.embed(request_of("quickstart", &["the same"])).await.unwrap();
    }
    until("the share of hits is told", async || {
        status(&namespace).await["cache"]["hitPercent"] == 90
    })
    .await;
    let row = namespace.kubectl(["get", "embm", "--no-headers"]).await;
    assert_eq!(row.split_whitespace().nth(4), Some("90"), "{row}");
}

#[tokio::test]
async fn pods_are_replaced_under_their_callers_without_a_failed_call() {
    let namespace = namespace("replaced").await;
    let mut model = quickstart();
    namespace.apply(&model).await.unwrap();
    ready(&namespace).await;
    let pods = pods(&namespace).await;
    let mut client = client(&namespace).await;
    let space = embed(&mut client, 0).await;
    model["spec"]["input"]["text"]["maxTokens"] = 128.into();
    namespace.apply(&model).await.unwrap();
    let mut calls = 0_u64;
    until("the pods are others, and callers have come to one", async || {
        calls += 1;
        let now = embed(&mut client, calls).await;
        now != space && self::pods(&namespace).await != pods
    })
    .await;
    ready(&namespace).await;
    assert_eq!(status(&namespace).await["spaceID"], embed(&mut client, calls + 1).await);
}

/// Embeds a text that was not embedded before, and gives the space of its vector. A call that met the end of its connection
/// is made once more, as clients of gRPC do by themselves.
async fn embed(client: &mut Embeddings, number: u64) -> String {
    let text = format!("text {number}");
    let request = || request_of("quickstart", &[&text]);
    let response = match client.embed(request()).await {
        Err(status) if status.code() == Code::Unavailable => client.embed(request()).await,
        answered => answered,
    };
    let response = response.expect("a call is answered").into_inner();
    assert!(!response.results.is_empty());
    response.space_id
}

/// A client of the model's Service.
async fn client(namespace: &Namespace) -> Embeddings {
    let path = "--output=jsonpath={.spec.clusterIP}";
    let address = namespace.kubectl(["get", "service", "quickstart", path]).await;
    let forwarded = Node::shared().await.forward(&address, 8081).await;
    embeddings(&forwarded.to_string()).await
}

async fn status(namespace: &Namespace) -> Value {
    let model = namespace.kubectl(["get", "embm/quickstart", "--output=json"]).await;
    let model: Value = serde_json::from_str(&model).expect("kubectl prints JSON");
    model["status"].clone()
}

fn follows(status: &Value) -> bool {
    status["policy"]["podsTotal"] == 1 && status["policy"]["podsCurrent"] == 1
}

/// The model's pods, each by its uid and how often it was restarted.
async fn pods(namespace: &Namespace) -> String {
    let of_pod = "{.metadata.uid} {.status.containerStatuses[*].restartCount}";
    let path = format!("--output=jsonpath={{range .items[*]}}{of_pod}{{end}}");
    let ours = "--selector=app.kubernetes.io/instance=quickstart";
    namespace.kubectl(["get", "pods", ours, &path]).await
}
