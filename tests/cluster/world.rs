//! What the tests of the operator's manners share: models, their children, and when all is at rest.

use embark_tests::{
    ApiProxy, api_proxy::Call, cluster::Namespace, operator::Operator, programs, sidecar::until,
};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// Every kind of child, in the plural.
pub(crate) const KINDS: [&str; 6] = [
    "serviceaccounts",
    "configmaps",
    "services",
    "deployments",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
];
/// Models.
pub(crate) const MODELS: &str = "embeddingmodels";
/// What carries the operator's label.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Which model a child belongs to.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";

/// A namespace as administrators see it: objects as JSON, by their plural and their name.
#[derive(Clone)]
pub(crate) struct World {
    client: Client,
    namespace: String,
}

// === impl World ===

impl World {
    pub(crate) async fn of(namespace: &Namespace) -> World {
        let client = namespace.plane().client().await;
        World { client, namespace: namespace.name().to_owned() }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An object; null when there is none.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        self.send("GET", &self.path(kind, name), &Value::Null).await.unwrap_or_default()
    }

    /// Every object of a kind.
    pub(crate) async fn list(&self, kind: &str) -> Vec<Value> {
        let list = self.send("GET", &self.path(kind, ""), &Value::Null).await;
        let mut list = list.expect("it can be listed");
        serde_json::from_value(list["items"].take()).expect("a list has items")
    }

    pub(crate) async fn create(&self, kind: &str, object: &Value) -> Result<Value, kube::Error> {
        self.send("POST", &self.path(kind, ""), object).await
    }

    /// Merges fields into an object, as somebody else than the operator.
    pub(crate) async fn merge(
        &self,
        kind: &str,
        name: &str,
        fields: &Value,
    ) -> Result<Value, kube::Error> {
        let path = format!("{}?fieldManager={SOMEBODY}", self.path(kind, name));
        self.send("PATCH", &path, fields).await
    }

    /// Applies fields on the server's side, as this manager.
    pub(crate) async fn apply(
        &self,
        manager: &str,
        kind: &str,
        object: &Value,
    ) -> Result<Value, kube::Error> {
        let path = format!("{}?fieldManager={manager}&force=true", self.path(kind, name(object)));
        self.send("APPLY", &path, object).await
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) -> Result<Value, kube::Error> {
        self.send("DELETE", &self.path(kind, name), &Value::Null).await
    }

    /// Makes a model of this name: the quick start with another spec on top.
    pub(crate) async fn model(&self, name: &str, spec: &Value) {
        self.create(MODELS, &model(name, spec)).await.expect("the model is good");
    }

    /// Merges into a model's spec.
    pub(crate) async fn edit(&self, name: &str, spec: &Value) {
        let fields = json!({ "spec": spec });
        self.merge(MODELS, name, &fields).await.expect("the model is good");
    }

    /// Changes a model's spec to another that means the same. Nothing is to be written of it but its status.
    pub(crate) async fn nudge(&self, name: &str) {
        let before = self.get(MODELS, name).await["spec"]["cache"]["ttl"].clone();
        let ttl = if before == "24h" { "1440m" } else { "24h" };
        self.edit(name, &json!({"cache": {"ttl": ttl}})).await;
    }

    /// Waits until the operator has said of each model's present generation how it is.
    pub(crate) async fn told(&self) {
        until("the operator has told of every model", async || {
            self.list(MODELS).await.iter().all(is_told)
        })
        .await;
    }

    /// Waits until all is told of, and until a look at every model changes none of its children.
    pub(crate) async fn rest(&self, proxy: &ApiProxy) {
        until("the world is at rest", async || {
            self.told().await;
            let (mark, before) = (proxy.mark(), self.gist().await);
            for model in self.list(MODELS).await {
                self.nudge(name(&model)).await;
            }
            self.told().await;
            let writes = proxy.writes(mark, &self.namespace);
            let is_status = |write: &Call| write.resource == STATUS;
            writes.iter().all(is_status) && self.gist().await == before
        })
        .await;
    }

    /// What of the children is the operator's to say.
    async fn gist(&self) -> Vec<Value> {
        let gist = |(kind, child): (&str, Value)| {
            let metadata = &child["metadata"];
            json!([kind, metadata["uid"], metadata["labels"], child["spec"], child["data"]])
        };
        self.children().await.into_iter().map(gist).collect()
    }

    /// Everything that carries the operator's label, as kind and object.
    pub(crate) async fn children(&self) -> Vec<(&'static str, Value)> {
        let mut children = Vec::new();
        for kind in KINDS {
            let objects = self.list(kind).await.into_iter();
            let ours =
                objects.filter(|object| object["metadata"]["labels"][MANAGED_BY] == OPERATOR);
            children.extend(ours.map(|object| (kind, object)));
        }
        children
    }

    /// The condition of a model; null when there is none.
    pub(crate) async fn condition(&self, model: &str, type_: &str) -> Value {
        let model = self.get(MODELS, model).await;
        conditions(&model).into_iter().find(|one| one["type"] == type_).unwrap_or_default()
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let prefix = match kind.split('/').next().unwrap_or_default() {
            MODELS => "/apis/embark.dev/v1alpha1",
            "deployments" | "replicasets" => "/apis/apps/v1",
            "horizontalpodautoscalers" => "/apis/autoscaling/v2",
            "poddisruptionbudgets" => "/apis/policy/v1",
            "events" => "/apis/events.k8s.io/v1",
            "leases" => "/apis/coordination.k8s.io/v1",
            "networkpolicies" => "/apis/networking.k8s.io/v1",
            _ => "/api/v1",
        };
        let (kind, sub) = kind.split_once('/').unwrap_or((kind, ""));
        let whole = format!("{prefix}/namespaces/{}/{kind}/{name}/{sub}", self.namespace);
        whole.trim_end_matches('/').to_owned()
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let (method, content) = match method {
            "APPLY" => ("PATCH", "application/apply-patch+yaml"),
            "PATCH" => ("PATCH", "application/merge-patch+json"),
            _ => (method, "application/json"),
        };
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.client.request(request.body(body).expect("a request")).await
    }
}

// === free functions ===

/// What the operator writes of a model.
pub(crate) const STATUS: &str = "embeddingmodels/status";
/// Who edits what is the operator's.
pub(crate) const SOMEBODY: &str = "somebody";
const OPERATOR: &str = "embark-operator";

/// A model of this name: the quick start with another spec on top.
pub(crate) fn model(name: &str, spec: &Value) -> Value {
    let text = std::fs::read_to_string(programs::root().join("examples/quickstart.yaml")).unwrap();
    let manifest = embark_crds::manifest::read(&text).unwrap().remove(0);
    let mut model = json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": { "name": name },
        "spec": manifest.spec,
    });
    merge(&mut model["spec"], spec);
    model
}

/// As a merge patch does it.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            for (name, value) in patch {
                merge(&mut target[name.as_str()], value);
            }
        }
        value => *target = value.clone(),
    }
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("what is stored has a name")
}

pub(crate) fn conditions(model: &Value) -> Vec<Value> {
    model["status"]["conditions"].as_array().cloned().unwrap_or_default()
}

/// Whether the operator has seen this generation of a model.
pub(crate) fn is_told(model: &Value) -> bool {
    let is_current = model["status"]["observedGeneration"] == model["metadata"]["generation"];
    is_current && conditions(model).iter().any(|condition| condition["type"] == "Ready")
}

/// Requests as lines, for a failure's message.
pub(crate) fn lines(calls: &[Call]) -> String {
    calls.iter().map(Call::line).collect::<Vec<_>>().join("\n")
}

/// The memory that a process has in RAM.
pub(crate) fn resident_bytes(operator: &Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it runs");
    let kibibytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kibibytes * 1024
}
