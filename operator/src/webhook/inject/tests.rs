//! Pods before and after.

use embark_crds::v1alpha1::EmbeddingModelSpec;
use serde_json::json;

use super::*;

const IMAGE: &str = "embark-sidecar:test";

fn model(name: &str, change: impl FnOnce(&mut Value)) -> Model {
    let text = include_str!("../../../tests/golden/quickstart/model.yaml");
    let spec = embark_crds::manifest::read(text).unwrap().remove(0).spec;
    let mut spec = serde_json::to_value(spec).unwrap();
    change(&mut spec);
    let spec: EmbeddingModelSpec = serde_json::from_value(spec).unwrap();
    Model { name: name.to_owned(), spec: Some(spec) }
}

fn asked(models: &[Model]) -> Asked {
    let models = models.iter().map(|model| model.name.clone()).collect();
    Asked { models, waits: false, memory: None, cpu: None }
}

fn pod(spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "application", "annotations": {"embark.dev/models": "a"}},
        "spec": spec,
    })
}

fn one_container() -> Value {
    pod(json!({"containers": [{"name": "main"}]}))
}

/// The pod as it is stored then.
fn injected(before: &Value, models: &[Model]) -> Result<Value, String> {
    let typed: Pod = serde_json::from_value(before.clone()).unwrap();
    let patch = patch(&typed, &asked(models), models, IMAGE).map_err(|refusal| refusal.message)?;
    let mut after = before.clone();
    patch.iter().for_each(|change| apply(&mut after, change));
    Ok(after)
}

/// As an API server does it, as far as it is needed: `add` alone.
fn apply(document: &mut Value, change: &Value) {
    assert_eq!(change["op"], "add");
    let (parent, last) = change["path"].as_str().unwrap().rsplit_once('/').unwrap();
    let value = change["value"].clone();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => list.insert(last.parse().unwrap(), value),
        parent => parent[last.replace("~1", "/")] = value,
    }
}

fn sidecar(pod: &Value) -> Value {
    let last = pod["spec"]["initContainers"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["name"], CONTAINER);
    last
}

#[test]
fn a_pod_gets_its_sidecar_and_its_containers_know_where_it_is() {
    let before = pod(json!({
        "initContainers": [{"name": "prepare"}, {"name": "proxy", "restartPolicy": "Always"}],
        "containers": [
            {"name": "main", "env": [{"name": "EMBARK_ADDRESS", "value": "mine:1"}, {"name": "A"}]},
            {"name": "other", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }));
    let after = injected(&before, &[model("a", |_| {})]).unwrap();
    let sidecar = sidecar(&after);
    assert_eq!((&sidecar["restartPolicy"], &sidecar["image"]), (&json!("Always"), &json!(IMAGE)));
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/live");
    assert_eq!(sidecar["livenessProbe"]["httpGet"], json!({"path": "/live", "port": 24182}));
    assert!(sidecar["readinessProbe"].is_null());
    // What prepares the pod is done before; what runs on beside it is not.
    assert_eq!(after["spec"]["initContainers"][0], before["spec"]["initContainers"][0]);
    let socket = json!({"name": "EMBARK_SOCKET", "value": "unix:///run/embark/embark.sock"});
    let address = json!({"name": "EMBARK_ADDRESS", "value": "127.0.0.1:24181"});
    assert_eq!(after["spec"]["initContainers"][1]["env"], json!([address, socket]));
    let main = &after["spec"]["containers"][0]["env"];
    assert_eq!(
        *main,
        json!([socket, {"name": "EMBARK_ADDRESS", "value": "mine:1"}, {"name": "A"}])
    );
    let mount = json!({"name": SOCKET_VOLUME, "mountPath": "/run/embark", "readOnly": true});
    assert_eq!(
        after["spec"]["containers"][1]["volumeMounts"],
        json!([{"name": "data", "mountPath": "/data"}, mount])
    );
    for volume in after["spec"]["volumes"].as_array().unwrap() {
        assert!(volume["emptyDir"]["sizeLimit"].is_null(), "{volume}");
        let optional = volume["configMap"]["optional"].as_bool();
        assert_eq!(optional, volume["configMap"].is_object().then_some(true), "{volume}");
    }
}

#[test]
fn what_has_its_sidecar_is_left_alone_and_what_came_meanwhile_is_given_the_rest() {
    let models = [model("a", |_| {})];
    let mut after = injected(&one_container(), &models).unwrap();
    assert_eq!(injected(&after, &models).unwrap(), after);
    // As a mesh does it: its own container, something of ours changed, one of its own behind ours.
    let containers = after["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "proxy"}));
    let init = after["spec"]["initContainers"].as_array_mut().unwrap();
    init[0]["image"] = "mirror/embark-sidecar:test".into();
    init.push(json!({"name": "proxy-init"}));
    let again = injected(&after, &models).unwrap();
    assert_eq!(again["spec"]["initContainers"], after["spec"]["initContainers"]);
    assert_eq!(again["spec"]["volumes"], after["spec"]["volumes"]);
    assert_eq!(again["spec"]["containers"][0], after["spec"]["containers"][0]);
    assert_eq!(again["spec"]["containers"][1]["env"].as_array().unwrap().len(), 2);
}

#[test]
fn what_a_model_names_is_mounted_where_the_sidecar_looks_for_it() {
    let a = model("a", |spec| {
        spec["model"]["source"]["uri"] = "https://example.com/model.onnx".into();
        spec["model"]["source"]["secretRef"] = json!({"name": "credentials"});
        spec["input"]["text"]["tokenizer"]["caBundleRef"] =
            json!({"name": "ca", "key": "root.pem"});
    });
    let after = injected(&one_container(), &[a, model("b", |_| {})]).unwrap();
    let volumes = after["spec"]["volumes"].as_array().unwrap().clone();
    let named = |name: &str| volumes.iter().find(|one| one["name"] == name).unwrap().clone();
    let secret = json!({"secretName": "credentials", "optional": true});
    assert_eq!(named("embark-0-secret-model")["secret"], secret);
    let items = json!([{"key": "root.pem", "path": "ca.crt"}]);
    assert_eq!(named("embark-0-ca-tokenizer")["configMap"]["items"], items);
    assert_eq!(named("embark-1-contract")["configMap"]["name"], "b-contract");
    let mounts = sidecar(&after)["volumeMounts"].as_array().unwrap().clone();
    let paths: Vec<&str> = mounts.iter().map(|one| one["mountPath"].as_str().unwrap()).collect();
    for path in [
        "/etc/embark/models/a/contract",
        "/etc/embark/models/a/policy",
        "/etc/embark/models/a/secrets/model",
        "/etc/embark/models/a/ca/tokenizer",
        "/etc/embark/models/b/contract",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/var/lib/embark",
        "/run/embark",
    ] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    // Each volume is mounted, and each mount has a volume.
    assert_eq!(volumes.len(), mounts.len());
}

#[test]
fn memory_is_what_the_models_need() {
    let requests = |models: &[Model]| {
        let after = injected(&one_container(), models).unwrap();
        let resources = sidecar(&after)["resources"].clone();
        assert_eq!(resources["limits"], json!({"memory": resources["requests"]["memory"]}));
        resources["requests"].clone()
    };
    let cache = |memory: &str| {
        let memory = memory.to_owned();
        move |spec: &mut Value| spec["cache"]["memory"]["sizeLimit"] = memory.into()
    };
    let little = model("a", cache("1Mi"));
    assert_eq!(requests(std::slice::from_ref(&little)), json!({"cpu": "100m", "memory": "256Mi"}));
    // 32 for the process; for each 128, 32 for the disk and 64 for files.
    let (one, other) = (model("a", cache("128Mi")), model("b", cache("128Mi")));
    assert_eq!(requests(&[one, other])["memory"], "480Mi");
    let said = model("a", |spec| {
        spec["pod"]["resources"] = json!({"requests": {"memory": "1Gi"}});
    });
    assert_eq!(requests(&[said.clone(), little.clone()])["memory"], "1153Mi");
    // What cannot be read is not mounted for, but for its contract.
    let unread = Model { name: "a".to_owned(), spec: None };
    assert_eq!(requests(&[unread])["memory"], "256Mi");
}

#[test]
fn annotations_choose_resources_and_whether_the_application_waits() {
    let models = [model("a", |_| {})];
    let quantity =
        |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into());
    let (memory, cpu) = (Some(quantity("2Gi")), Some(quantity("1")));
    let asked = Asked { waits: true, memory, cpu, ..asked(&models) };
    let typed: Pod = serde_json::from_value(one_container()).unwrap();
    let mut after = one_container();
    let patch = patch(&typed, &asked, &models, IMAGE).unwrap();
    patch.iter().for_each(|change| apply(&mut after, change));
    let sidecar = sidecar(&after);
    assert_eq!(sidecar["resources"]["requests"], json!({"cpu": "1", "memory": "2Gi"}));
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(sidecar["startupProbe"]["failureThreshold"], 3600);
    assert_eq!(sidecar["livenessProbe"]["httpGet"]["path"], "/live");
}

#[test]
fn a_pod_of_roots_gets_a_sidecar_that_is_not() {
    let user = |security: Value| {
        let before = pod(json!({"containers": [{"name": "main"}], "securityContext": security}));
        sidecar(&injected(&before, &[model("a", |_| {})]).unwrap())["securityContext"].clone()
    };
    assert_eq!(user(json!({"runAsUser": 0}))["runAsUser"], 65532);
    // A namespace's own choice of a user stands.
    assert!(user(json!({"runAsUser": 1000}))["runAsUser"].is_null());
    assert_eq!(user(json!({}))["runAsNonRoot"], true);
}

#[test]
fn what_cannot_be_together_is_refused_with_its_field() {
    let with = |spec: Value| {
        let mut all = json!({"containers": [{"name": "main"}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod(all)
    };
    let port = |port: Value| json!({"containers": [{"name": "main", "ports": [port]}]});
    let mounts = |mount: Value| json!({"containers": [{"name": "main", "volumeMounts": [mount]}]});
    let mount = json!({"name": "mine", "mountPath": "/run/embark/"});
    for (before, part) in [
        (with(json!({"hostNetwork": true})), "spec.hostNetwork: true"),
        (with(json!({"os": {"name": "windows"}})), "spec.os.name"),
        (with(port(json!({"containerPort": 24181}))), "spec.containers[0].ports: container main"),
        (with(port(json!({"containerPort": 24182, "protocol": "TCP"}))), "listens on 24182"),
        (with(json!({"initContainers": [{"name": CONTAINER}]})), "spec.initContainers[0].name"),
        (with(json!({"containers": [{"name": CONTAINER}]})), "spec.containers[0].name"),
        (
            with(json!({"volumes": [{"name": "embark-0-policy", "emptyDir": {}}]})),
            "spec.volumes[0].name: \"embark-0-policy\"",
        ),
        (with(mounts(mount)), "container main has volume mine at /run/embark"),
        (
            with(mounts(json!({"name": "mine", "mountPath": "/run", "readOnly": true}))),
            "spec.containers[0].volumeMounts: container main has volume mine at \"/run\"",
        ),
        (
            with(mounts(json!({"name": "mine", "mountPath": "/run/embark/more/"}))),
            "has volume mine at \"/run/embark/more/\", within the folder",
        ),
    ] {
        let message = injected(&before, &[model("a", |_| {})]).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
    // There the folder can be made, or is nowhere near.
    for (path, read_only) in [("/run", false), ("/run/embarked", true), ("/ru", true)] {
        let mount = json!({"name": "mine", "mountPath": path, "readOnly": read_only});
        assert!(injected(&with(mounts(mount)), &[model("a", |_| {})]).is_ok(), "{path}");
    }
    let udp = with(port(json!({"containerPort": 24181, "protocol": "UDP"})));
    assert!(injected(&udp, &[model("a", |_| {})]).is_ok());
    let claimed = model("a", |spec| {
        spec["input"]["text"]["tokenizer"]["uri"] = "pvc://claim/tokenizer.json".into();
    });
    let message = injected(&one_container(), &[claimed]).unwrap_err();
    assert!(message.contains("spec.input.text.tokenizer of EmbeddingModel \"a\""), "{message}");
}

#[test]
fn a_sidecar_that_was_made_for_other_models_is_refused() {
    let copied = injected(&one_container(), &[model("a", |_| {})]).unwrap();
    let message = injected(&copied, &[model("b", |_| {})]).unwrap_err();
    assert!(message.contains("was made for the models \"a\""), "{message}");
    // The mark alone is no sidecar.
    let mut marked = one_container();
    marked["metadata"]["annotations"][INJECTED] = "a".into();
    let after = injected(&marked, &[model("a", |_| {})]).unwrap();
    assert_eq!(sidecar(&after)["name"], CONTAINER);
}

#[test]
fn annotations_of_meshes_stay_as_they_are() {
    let mut before = one_container();
    let annotations = json!({
        "embark.dev/models": "a",
        "sidecar.istio.io/inject": "true",
        "sidecar.istio.io/status": "{\"initContainers\":[\"istio-init\"],\"containers\":null}",
        "traffic.sidecar.istio.io/excludeInboundPorts": " 8080,24181 ",
        "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true\n",
        "linkerd.io/inject": "enabled",
        "config.linkerd.io/skip-outbound-ports": "443",
        "config.alpha.linkerd.io/proxy-wait-before-exit-seconds": "5",
    });
    before["metadata"]["annotations"] = annotations.clone();
    let mut after = injected(&before, &[model("a", |_| {})]).unwrap();
    let mine = after["metadata"]["annotations"].as_object_mut().unwrap().remove(INJECTED);
    assert_eq!(mine.unwrap(), "a");
    assert_eq!(after["metadata"].to_string(), before["metadata"].to_string());
}
