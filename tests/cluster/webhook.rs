//! Pods that ask for a sidecar, as the API server stores them.

use embark_tests::{
    api_proxy::Verb,
    cluster::{ControlPlane, Namespace},
    injection::{Injection, asking},
    programs,
    sidecar::{http_get, until},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

#[tokio::test]
async fn pod_that_asks_is_stored_with_a_sidecar_and_any_other_as_it_is() {
    let (namespace, injection) = start("injected").await;
    apply_model(&namespace, "quickstart").await;
    namespace.apply(&asking("asks", "quickstart")).await.unwrap();
    let pod = pod(&namespace, "asks").await;
    let sidecar = sidecar(&pod).clone();
    assert_eq!(sidecar["image"], "localhost/embark-sidecar:test");
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(pod["metadata"]["annotations"]["embark.dev/injected"], "quickstart");

    // Kubernetes gives the application its token, and the sidecar an empty folder in its place.
    let at_token = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mounts = mounts.filter(|mount| mount["mountPath"] == path);
        let volumes: Vec<String> =
            mounts.map(|mount| mount["name"].as_str().unwrap().to_owned()).collect();
        volumes
    };
    let application = &pod["spec"]["containers"][0];
    assert_eq!(at_token(&sidecar), ["embark-no-token"]);
    assert!(at_token(application)[0].starts_with("kube-api-access"), "{application}");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let empty = volumes.iter().find(|volume| volume["name"] == "embark-no-token").unwrap();
    assert_eq!(empty["emptyDir"], json!({}));
    let environment = json!([
        {"name": "EMBARK_ADDRESS", "value": "127.0.0.1:24181"},
        {"name": "EMBARK_SOCKET", "value": "unix:///run/embark/embark.sock"},
    ]);
    assert_eq!(application["env"], environment);

    let mut silent = asking("silent", "quickstart");
    silent["metadata"]["labels"] = json!({});
    namespace.apply(&silent).await.unwrap();
    let silent = self::pod(&namespace, "silent").await;
    assert!(silent["spec"]["initContainers"].is_null(), "{silent}");
    let operator = &injection.alone.operator;
    assert!(operator.metric("embark_operator_webhook_seconds_count").await >= 1.0);
    assert!(operator.metric("embark_operator_webhook_certificate_end_seconds").await > 1.0e9);
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn dry_run_and_templates_of_workloads_are_answered_alike() {
    let (namespace, injection) = start("workloads").await;
    apply_model(&namespace, "quickstart").await;
    let dry = asking("dry", "quickstart").to_string();
    let apply = ["apply", "--dry-run=server", "--output=json", "--filename", "-"];
    let name = format!("--namespace={}", namespace.name());
    let arguments = [name.as_str()].into_iter().chain(apply);
    let dry = namespace.plane().try_kubectl(arguments, &dry).await;
    let dry: Value = serde_json::from_str(&dry.output).unwrap_or_else(|_| panic!("{}", dry.errors));
    sidecar(&dry);

    let mut template = asking("template", "quickstart");
    for field in ["apiVersion", "kind"] {
        template.as_object_mut().unwrap().remove(field);
    }
    template["metadata"]["labels"]["app"] = "workload".into();
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    let selector = json!({"matchLabels": {"app": "workload"}});
    for (group, kind, spec) in [
        ("batch/v1", "Job", json!({"template": job})),
        ("apps/v1", "Deployment", json!({"selector": selector, "template": template})),
    ] {
        let metadata = json!({"name": "workload"});
        let workload =
            json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec});
        namespace.apply(&workload).await.unwrap();
    }
    let selector = "--selector=app=workload";
    until("both have a pod", async || {
        let pods = namespace.kubectl(["get", "pods", selector, "--output=name"]).await;
        pods.lines().count() == 2
    })
    .await;
    let pods = namespace.kubectl(["get", "pods", selector, "--output=json"]).await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    for pod in pods["items"].as_array().unwrap() {
        sidecar(pod);
    }
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn pod_that_cannot_have_a_sidecar_is_refused_by_a_sentence() {
    let (namespace, injection) = start("refusals").await;
    let refused = async |pod: Value| namespace.apply(&pod).await.unwrap_err();
    // The API server does not go by a configuration at once. Until then, pods are made.
    until("the API server asks the webhook", async || {
        let applied = namespace.apply(&asking("none", "absent")).await;
        if applied.is_ok() {
            namespace.kubectl(["delete", "pod", "none"]).await;
        }
        applied.is_err_and(|message| message.contains("denied the request"))
    })
    .await;
    let message = refused(asking("none", "absent")).await;
    let there = format!("no EmbeddingModel \"absent\" in namespace {}", namespace.name());
    assert!(message.contains(&there) && message.contains("which has none"), "{message}");
    for name in ["alpha", "beta"] {
        apply_model(&namespace, name).await;
    }
    until("the webhook knows them", async || {
        refused(asking("some", "alpha,absent")).await.contains("which has alpha, beta")
    })
    .await;
    let mut unsaid = asking("unsaid", "alpha");
    unsaid["metadata"]["annotations"] = json!({});
    let mut clash = asking("clash", "alpha");
    clash["spec"]["containers"][0]["ports"] = json!([{"containerPort": 24182}]);
    for (pod, part) in [
        (unsaid, "embark.dev/models]: is missing"),
        (asking("twice", "alpha,alpha"), "names \"alpha\" more than once"),
        (clash, "container application listens on 24182"),
    ] {
        let message = refused(pod).await;
        let by = "admission webhook \"inject.embark.dev\" denied the request: ";
        assert!(message.contains(by) && message.contains(part), "{message}");
    }
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn model_and_pod_that_come_together_find_each_other() {
    let (namespace, injection) = start("together").await;
    for number in 0..5 {
        let name = format!("model-{number}");
        let together = json!({
            "apiVersion": "v1", "kind": "List",
            "items": [model(&name), asking(&format!("pod-{number}"), &name)],
        });
        namespace.apply(&together).await.unwrap();
    }
    // Several models in one pod.
    namespace.apply(&asking("several", "model-1,model-0")).await.unwrap();
    let pod = pod(&namespace, "several").await;
    let mounts = sidecar(&pod)["volumeMounts"].as_array().unwrap().clone();
    for model in ["model-0", "model-1"] {
        let path = format!("/etc/embark/models/{model}/contract");
        assert!(mounts.iter().any(|mount| mount["mountPath"] == *path), "{mounts:?}");
    }
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn stored_pod_that_comes_again_keeps_its_sidecar_and_a_new_container_gets_the_socket() {
    let (namespace, injection) = start("again").await;
    apply_model(&namespace, "quickstart").await;
    namespace.apply(&asking("first", "quickstart")).await.unwrap();
    let first = pod(&namespace, "first").await;
    // With all the defaults that an API server adds, as a later webhook sees it.
    let mut second = json!({"apiVersion": "v1", "kind": "Pod", "spec": first["spec"]});
    let (labels, annotations) = (&first["metadata"]["labels"], &first["metadata"]["annotations"]);
    second["metadata"] = json!({"name": "second", "labels": labels, "annotations": annotations});
    let mut late = second["spec"]["containers"][0].clone();
    late["name"] = "late".into();
    for field in ["env", "volumeMounts"] {
        late.as_object_mut().unwrap().remove(field);
    }
    second["spec"]["containers"].as_array_mut().unwrap().push(late);
    namespace.apply(&second).await.unwrap();
    let second = pod(&namespace, "second").await;
    assert_eq!(second["spec"]["initContainers"], first["spec"]["initContainers"]);
    assert_eq!(second["spec"]["containers"][0], first["spec"]["containers"][0]);
    let late = &second["spec"]["containers"][1];
    assert_eq!(late["env"], first["spec"]["containers"][0]["env"]);
    assert!(late["volumeMounts"].to_string().contains("embark-socket"), "{late}");
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn without_an_operator_only_pods_that_ask_are_held_up() {
    let (namespace, injection) = start("away").await;
    apply_model(&namespace, "quickstart").await;
    let Injection { alone, configuration } = injection;
    alone.stop().await;
    let error = namespace.apply(&asking("asks", "quickstart")).await.unwrap_err();
    assert!(error.contains("failed calling webhook \"inject.embark.dev\""), "{error}");
    for (name, label) in
        [("without", json!({})), ("with-no", json!({"embark.dev/inject": "false"}))]
    {
        let mut silent = asking(name, "quickstart");
        silent["metadata"]["labels"] = label;
        namespace.apply(&silent).await.unwrap();
    }
    namespace.kubectl(["delete", "mutatingwebhookconfiguration", &configuration]).await;
}

#[tokio::test]
async fn operator_that_ends_answers_until_the_cluster_has_heard_of_it() {
    let namespace = ControlPlane::shared().await.restricted_namespace("ending").await;
    let injection = Injection::start(&namespace, &["--webhook-drain=10s"]).await;
    apply_model(&namespace, "quickstart").await;
    until("pods are made", async || namespace.apply(&asking("before", "quickstart")).await.is_ok())
        .await;
    let Injection { alone, configuration } = injection;
    let address = alone.operator.address().to_owned();
    tokio::join!(alone.stop(), async {
        until("it is not ready", async || {
            let (code, why) = http_get(&address, "/ready").await;
            code == 503 && why.contains("the webhook is ending")
        })
        .await;
        namespace.apply(&asking("after", "quickstart")).await.unwrap();
    });
    namespace.kubectl(["delete", "mutatingwebhookconfiguration", &configuration]).await;
}

#[tokio::test]
async fn whoever_else_calls_the_webhook_is_told_off_and_holds_nobody_up() {
    let (namespace, injection) = start("hostile").await;
    apply_model(&namespace, "quickstart").await;
    let address = injection.address();
    // They say nothing, or what is not TLS, and stay.
    let mut silent = Vec::new();
    // More than there is room for.
    for number in 0..300 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    let many = format!("[{}{{}}]", "{},".repeat(100_000));
    let large = format!("\"{}\"", "a".repeat(4 * 1024 * 1024));
    for body in ["", "{}", &many] {
        assert_eq!(posted(&address, body).await, "400", "{} bytes", body.len());
    }
    // It may be cut off before it hears why.
    let code = posted(&address, &large).await;
    assert!(["000", "413"].contains(&code.as_str()), "{code}");
    namespace.apply(&asking("asks", "quickstart")).await.unwrap();
    drop(silent);
    injection.stop(&namespace).await;
}

#[tokio::test]
async fn model_that_is_known_is_never_asked_for_and_one_that_is_not_once() {
    let (namespace, injection) = start("asked-for").await;
    apply_model(&namespace, "quickstart").await;
    let (other, proxy) = injection.alone.operator.another_through_its_own("other").await;
    other.wait_for_line("the webhook shows another certificate").await;
    injection.call(&namespace, &other).await;
    let gets = |mark| proxy.since(mark, |call| call.is(Verb::Get, "embeddingmodels")).len();
    let answers = async || other.metric("embark_operator_webhook_seconds_count").await;
    let mut pods = 0;
    until("the API server calls it, and it knows the model", async || {
        pods += 1;
        let (mark, before) = (proxy.mark(), answers().await);
        let made = namespace.apply(&asking(&format!("early-{pods}"), "quickstart")).await;
        made.is_ok() && answers().await > before && gets(mark) == 0
    })
    .await;
    let mark = proxy.mark();
    namespace.apply(&asking("known", "quickstart")).await.unwrap();
    assert_eq!(gets(mark), 0);
    namespace.apply(&asking("unknown", "absent")).await.unwrap_err();
    assert_eq!(gets(mark), 1);
    other.stop().await;
    injection.stop(&namespace).await;
}

/// The status of an answer to this body.
async fn posted(address: &str, body: &str) -> String {
    let mut curl = tokio::process::Command::new("curl");
    let write = ["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}"];
    curl.args(write).args(["--header", "Expect:", "--data-binary", "@-"]);
    curl.arg(format!("https://{address}/inject"));
    programs::run(curl, body.as_bytes()).await.output
}

async fn start(prefix: &str) -> (Namespace, Injection) {
    let namespace = ControlPlane::shared().await.restricted_namespace(prefix).await;
    let injection = Injection::start(&namespace, &[]).await;
    (namespace, injection)
}

/// The quick start's model by another name.
fn model(name: &str) -> Value {
    let text = std::fs::read_to_string(programs::root().join("examples/quickstart.yaml")).unwrap();
    let manifest = embark_crds::manifest::read(&text).unwrap().remove(0);
    json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": name },
        "spec": manifest.spec,
    })
}

pub(super) async fn apply_model(namespace: &Namespace, name: &str) {
    namespace.apply(&model(name)).await.unwrap();
}

async fn pod(namespace: &Namespace, name: &str) -> Value {
    let pod = namespace.kubectl(["get", "pod", name, "--output=json"]).await;
    serde_json::from_str(&pod).unwrap()
}

/// The sidecar, which is the last of those that start before the application.
fn sidecar(pod: &Value) -> &Value {
    let last = pod["spec"]["initContainers"].as_array().and_then(|all| all.last());
    let last = last.unwrap_or_else(|| panic!("{pod} has no sidecar"));
    assert_eq!(last["name"], "embark-sidecar");
    last
}
