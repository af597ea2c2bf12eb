//! What a request is about, as Kubernetes sees it.

use http::{header, request::Parts};
use tokio::time::Instant;

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are Kubernetes' own")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    Other,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is done.
    pub verb: Verb,
    /// To what, in the plural, with a subresource: `deployments`, `embeddingmodels/status`.
    pub resource: String,
    /// In which namespace; empty: in all, or in none.
    pub namespace: String,
    /// The object's name; empty: there is none in the path.
    pub name: String,
    /// Who is to own the fields.
    pub manager: String,
    /// Who asks.
    pub agent: String,
    /// The answer's code; 0: there is none, or none yet.
    pub code: u16,
    /// When it came.
    pub began: Instant,
    /// When the answer's head was there.
    pub ended: Option<Instant>,
}

// === impl Call ===

impl Call {
    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, Verb::Get | Verb::List | Verb::Watch)
    }

    /// Whether it is this verb on this resource.
    pub fn is(&self, verb: Verb, resource: &str) -> bool {
        self.verb == verb && self.resource == resource
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let Call { verb, resource, namespace, name, code, .. } = self;
        format!("{verb:?} {resource} {namespace}/{name} → {code}")
    }
}

// === free functions ===

pub(super) fn read(head: &Parts) -> Call {
    let path: Vec<&str> = head.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    // api/v1/… or apis/GROUP/VERSION/…
    let prefix = if path.first() == Some(&"api") { 2 } else { 3 };
    let rest = path.get(prefix..).unwrap_or_default();
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (resource, name) = match rest {
        [] => (head.uri.path().to_owned(), ""),
        [resource] => ((*resource).to_owned(), ""),
        [resource, name] => ((*resource).to_owned(), *name),
        [resource, name, sub, ..] => (format!("{resource}/{sub}"), *name),
    };
    let asked = head.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let pair = asked.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.unwrap_or_default().to_owned()
    };
    let verb = match (head.method.as_str(), name.is_empty()) {
        ("GET", _) if parameter("watch") == "true" => Verb::Watch,
        ("GET", true) => Verb::List,
        ("GET", false) => Verb::Get,
        ("POST", _) => Verb::Create,
        ("PUT", _) => Verb::Update,
        ("PATCH", _) => Verb::Patch,
        ("DELETE", _) => Verb::Delete,
        _ => Verb::Other,
    };
    let agent = head.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Call {
        verb,
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        manager: parameter("fieldManager"),
        agent: agent.unwrap_or_default().to_owned(),
        code: 0,
        began: Instant::now(),
        ended: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, path: &str) -> Call {
        let request = http::Request::builder().method(method).uri(path).body(()).unwrap();
        read(&request.into_parts().0)
    }

    #[test]
    fn paths_say_what_a_request_is_about() {
        let watch = call("GET", "/api/v1/pods?labelSelector=a%3Db&watch=true");
        assert!(watch.is(Verb::Watch, "pods") && watch.namespace.is_empty() && !watch.is_write());
        let status = "/apis/embark.dev/v1alpha1/namespaces/n/embeddingmodels/m/status";
        let status = call("PATCH", &format!("{status}?fieldManager=embark-operator"));
        assert!(status.is(Verb::Patch, "embeddingmodels/status") && status.is_write());
        let (namespace, name) = (status.namespace.as_str(), status.name.as_str());
        assert_eq!([namespace, name, &status.manager], ["n", "m", "embark-operator"]);
        assert!(call("POST", "/api/v1/namespaces/n/events").is(Verb::Create, "events"));
        assert!(call("GET", "/api/v1/namespaces/n").is(Verb::Get, "namespaces"));
        assert!(call("GET", "/readyz").is(Verb::List, "/readyz"));
    }
}
