//! How many models' pods an upgrade of the operator replaces at a time. Another version may make pods otherwise, of every
//! model at once: a cluster whose models all begin with an empty cache, or all fail alike, is what this keeps from happening.
//! What people change themselves is never held back.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{holds::holds, progress};
use crate::{children::Children, names};

/// Models whose pods an upgrade replaces at a time.
pub(super) const AT_ONCE: usize = 5;

/// Roll-outs of upgrades that were begun and that the watches may not have told of.
#[derive(Default)]
pub(super) struct Rollouts(Mutex<BTreeMap<Key, Option<i64>>>);

/// A Deployment's namespace and name.
type Key = (String, String);

/// Leave to roll one Deployment.
#[derive(Debug)]
pub(super) struct Leave(Key);

/// Whether a Deployment is to have other pods although nothing has changed that its model says of them, and has pods that
/// serve. What somebody edited is not meant: the hash of what was applied is as it was then.
pub(super) fn is_upgrade(desired: &Value, live: &Deployment) -> bool {
    let wanted = |name: &str| desired["metadata"]["annotations"][name].as_str();
    let found = |name: &str| live.annotations().get(name).map(String::as_str);
    let is_same_model =
        found(names::PODS_HASH).is_none_or(|found| Some(found) == wanted(names::PODS_HASH));
    let is_edited = found(names::APPLIED_HASH) == wanted(names::APPLIED_HASH);
    let serves = live.status.as_ref().and_then(|status| status.available_replicas) > Some(0);
    let template = live.spec.as_ref().map(|spec| json!(spec.template)).unwrap_or_default();
    is_same_model && !is_edited && serves && !holds(&template, &desired["spec"]["template"])
}

// === impl Rollouts ===

impl Rollouts {
    /// Leave to roll out a Deployment because of an upgrade; `None`: enough others are under way.
    pub(super) fn begin(&self, deployment: &Deployment, children: &Children) -> Option<Leave> {
        let key = key(deployment);
        let mut begun = self.0.lock();
        begun.retain(|key, generation| !is_told(children, key, *generation));
        let under_way = |other: &Deployment| is_upgrading(other) && self::key(other) != key;
        let told = children.all::<Deployment>();
        let told = told.iter().filter(|other| under_way(other)).map(|other| self::key(other));
        let mut others: Vec<Key> = told.chain(begun.keys().cloned()).collect();
        others.retain(|other| *other != key);
        others.sort();
        others.dedup();
        if others.len() >= AT_ONCE {
            return None;
        }
        begun.insert(key.clone(), None);
        Some(Leave(key))
    }

    /// Notes that a roll-out is what the cluster has from this generation on; `None`: it was not begun after all.
    pub(super) fn begun(&self, leave: Leave, generation: Option<i64>) {
        let mut begun = self.0.lock();
        match generation {
            Some(generation) => begun.insert(leave.0, Some(generation)),
            None => begun.remove(&leave.0),
        };
    }
}

// === free functions ===

/// Whether pods are being replaced because of an upgrade.
fn is_upgrading(deployment: &Deployment) -> bool {
    deployment.annotations().contains_key(names::UPGRADE) && progress::is_rolling_out(deployment)
}

/// Whether the watches have told of a roll-out, or of the end of its Deployment.
fn is_told(children: &Children, (namespace, name): &Key, generation: Option<i64>) -> bool {
    let Some(generation) = generation else { return false };
    children
        .get::<Deployment>(namespace, name)
        .is_none_or(|deployment| deployment.metadata.generation >= Some(generation))
}

fn key(deployment: &Deployment) -> Key {
    (deployment.namespace().unwrap_or_default(), deployment.name_any())
}
