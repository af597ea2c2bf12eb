//! Load makes pods, and nobody but the autoscaler says how many.

use std::process::Stdio;

use embark_tests::{cluster::Namespace, release::Release};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::quickstart::{application, namespace, quickstart, ready};

#[tokio::test]
async fn load_moves_replicas_and_a_new_apply_and_operator_leave_them() {
    let namespace = namespace("autoscaling").await;
    let mut model = quickstart();
    model["spec"]["autoscaling"] =
        json!({"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 50});
    // Little, so that a busy machine can bring the load.
    model["spec"]["pod"] = json!({"resources": {"requests": {"cpu": "50m"}}});
    model["spec"]["cache"]["mode"] = "Disabled".into();
    namespace.apply(&model).await.unwrap();
    ready(&namespace).await;
    patiently("the autoscaler sees a figure", async || {
        let figures = "--output=jsonpath={.status.currentMetrics}";
        let seen = namespace.kubectl(["get", "hpa/quickstart", figures]).await;
        seen.contains("averageUtilization")
    })
    .await;
    let load = Load::start(&namespace).await;
    patiently("load has made another pod", async || replicas(&namespace).await == "2").await;
    // It has done its part: pods are taken away after ten minutes at the earliest.
    load.stop().await;
    Release::shared().await.restart_operator().await;
    model["spec"]["cache"]["ttl"] = "2h".into();
    namespace.apply(&model).await.unwrap();
    patiently("the operator has seen the change", async || {
        let seen = "--output=jsonpath={.metadata.generation} {.status.observedGeneration}";
        let seen = namespace.kubectl(["get", "embm/quickstart", seen]).await;
        seen.split_once(' ').is_some_and(|(now, seen)| now == seen)
    })
    .await;
    assert_eq!(replicas(&namespace).await, "2");
}

/// An application's pod that embeds one line after another.
struct Load {
    attached: tokio::process::Child,
    lines: tokio::task::JoinHandle<()>,
}

// === impl Load ===

impl Load {
    async fn start(namespace: &Namespace) -> Load {
        let address = format!("quickstart.{}.svc:8081", namespace.name());
        namespace.apply(&application("load", &["embed", "--address", &address])).await.unwrap();
        namespace.kubectl(["wait", "--for=condition=Ready", "pod/load", "--timeout=180s"]).await;
        let mut attach = namespace.plane().command("kubectl");
        attach.args(["--namespace", namespace.name(), "attach", "--stdin", "load"]);
        attach.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut attached = attach.kill_on_drop(true).spawn().expect("kubectl starts");
        let mut stdin = attached.stdin.take().expect("it is piped");
        let lines = tokio::spawn(async move {
            for number in 0_u64.. {
                let line = format!("a line of its own, number {number}, to keep a core busy\n");
                // It ends when the pod does.
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        Load { attached, lines }
    }

    async fn stop(mut self) {
        self.lines.abort();
        self.attached.kill().await.expect("kubectl can be killed");
    }
}

async fn replicas(namespace: &Namespace) -> String {
    namespace.kubectl(["get", "deployment/quickstart", "--output=jsonpath={.spec.replicas}"]).await
}

/// Metrics are gathered each 15 s and an autoscaler looks at several of them: this waits longer than other tests do.
async fn patiently(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_secs(1));
        while !holds().await {
            ticks.tick().await;
        }
    };
    let limit = std::time::Duration::from_secs(300);
    assert!(tokio::time::timeout(limit, waited).await.is_ok(), "it never came to be that {what}");
}
