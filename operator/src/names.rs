//! What the operator calls things: names, labels and annotations, all from here.

use std::collections::BTreeMap;

/// Selects whatever the operator made.
pub(crate) const OURS: &str = "app.kubernetes.io/managed-by=embark-operator";
/// Selects the operator's own Deployment and what goes with it, as the chart labels them.
pub(crate) const OPERATORS: &str =
    "app.kubernetes.io/name=embark-operator,app.kubernetes.io/component=operator";
/// On a pod: what asks for a sidecar, as the chart's webhook selects by it.
pub(crate) const INJECT: &str = "embark.dev/inject";
/// On a pod that asks: names the models.
pub(crate) const MODELS: &str = "embark.dev/models";
/// On such a pod: whether the application starts only once every model is ready.
pub(crate) const WAIT: &str = "embark.dev/wait-for-models";
/// On such a pod: the memory of the sidecar.
pub(crate) const MEMORY: &str = "embark.dev/memory";
/// On such a pod: the CPU that the sidecar requests.
pub(crate) const CPU: &str = "embark.dev/cpu";
/// Marks a pod that has its sidecar. The value is what it was made for.
pub(crate) const INJECTED: &str = "embark.dev/injected";
/// The container of a pod that serves.
pub(crate) const CONTAINER: &str = "sidecar";
/// The hash of a child as it was applied: what is not ours in the live object does not count.
pub(crate) const APPLIED_HASH: &str = "embark.dev/applied-hash";
/// The hash of what a spec says of pods: another template with the same hash is the operator's doing. All else in a spec leaves
/// the Deployment as it is: an annotation more would make its status of no use until Kubernetes has looked at it again.
pub(crate) const PODS_HASH: &str = "embark.dev/pods-hash";
/// Marks a Deployment whose pods are replaced because the operator makes them otherwise than one before it.
pub(crate) const UPGRADE: &str = "embark.dev/upgrade";
/// On an EmbeddingModel, "true": nothing is applied.
pub(crate) const PAUSED: &str = "embark.dev/paused";
/// The hash of the policy that a pod is to follow. It changes nothing but that the kubelet brings the mount up to date.
pub(crate) const POLICY_HASH: &str = "embark.dev/policy-hash";
/// Marks the ConfigMaps of a pool's contracts, which are pruned when nothing refers to them.
pub(crate) const ROLE: &str = "embark.dev/role";
/// The value of [`ROLE`] for those.
pub(crate) const POOL_CONTRACT: &str = "pool-contract";

/// The conditions of a model that the operator writes.
pub(crate) const CONDITION_TYPES: [&str; 6] =
    ["Accepted", "Available", "CacheHealthy", "ModelVerified", "Progressing", "Ready"];
/// The Lease that replicas elect their leader by, unless it is said.
pub(crate) const LEASE: &str = "embark-operator";

const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const COMPONENT: &str = "app.kubernetes.io/component";
/// Characters of a hash within a name.
const HASH_CHARACTERS: usize = 10;

/// The names of one model's children. A model's name has at most 45 characters, so that each fits its limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a>(pub(crate) &'a str);

// === impl Names ===

impl Names<'_> {
    /// The Deployment, the Service, the autoscaler, the disruption budget and the service account.
    pub(crate) fn main(self) -> String {
        self.0.to_owned()
    }

    /// The headless Service.
    pub(crate) fn pods(self) -> String {
        format!("{}-pods", self.0)
    }

    /// The ConfigMap of the contract that injected sidecars follow.
    pub(crate) fn contract(self) -> String {
        format!("{}-contract", self.0)
    }

    /// The immutable ConfigMap of the contract that a pool's pods follow.
    pub(crate) fn pool_contract(self, hash: &str) -> String {
        format!("{}-contract-{}", self.0, &hash[..HASH_CHARACTERS])
    }

    /// The ConfigMap of the cache policy.
    pub(crate) fn policy(self) -> String {
        format!("{}-policy", self.0)
    }

    /// Where callers reach the model.
    pub(crate) fn address(self, namespace: &str) -> String {
        format!("{}.{namespace}.svc:{}", self.0, embark_crds::contract::GRPC_PORT)
    }

    /// What selects the model's pods. It can never change: a Deployment's selector is immutable.
    pub(crate) fn selector(self) -> BTreeMap<String, String> {
        labels([(NAME, "embedding-model"), (INSTANCE, self.0)])
    }

    /// The labels of every child.
    pub(crate) fn labels(self) -> BTreeMap<String, String> {
        let mut all = self.selector();
        all.extend(labels([(MANAGED_BY, "embark-operator"), (COMPONENT, "pool")]));
        all
    }
}

// === free functions ===

/// The labels of what the operator makes for itself.
pub(crate) fn own_labels() -> BTreeMap<String, String> {
    labels([(MANAGED_BY, "embark-operator")])
}

/// A selector as text, as the scale subresource has it.
pub(crate) fn selector_text(selector: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// The model that an object of ours belongs to.
pub(crate) fn model_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(INSTANCE).map(String::as_str)
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_fits_every_limit() {
        let longest = "a".repeat(45);
        let names = Names(&longest);
        let hash = "0".repeat(64);
        for name in [names.main(), names.pods(), names.contract(), names.policy()] {
            assert!(name.len() <= 63, "{name}");
        }
        // A pod's name is the Deployment's with a hash of 10 and a suffix of 5, and is a host's name.
        assert!(names.main().len() + 17 <= 63);
        assert!(names.pool_contract(&hash).len() <= 253);
    }

    #[test]
    fn a_selector_reads_as_kubectl_takes_it() {
        let text = selector_text(&Names("m").selector());
        assert_eq!(text, "app.kubernetes.io/instance=m,app.kubernetes.io/name=embedding-model");
    }
}
