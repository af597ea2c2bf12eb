//! The watches of several namespaces as one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, once},
};
use kube::{
    ResourceExt as _,
    runtime::{
        reflector::Store,
        watcher::{self, Event},
    },
};
use tokio::time::{Instant, sleep_until};

use super::Events;
use crate::kube_ext::{self, Watched};

/// How long namespaces that may not be read are waited for: an API server that has just started may know no roles yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes one watch of several: one list in the beginning, and after that changes alone. A later list of one namespace, as
/// after a watch that broke off, becomes the changes that it amounts to.
pub(super) struct Merge<K: Watched> {
    /// What was listed so far; `None` once everything was.
    listing: Option<Listing<K>>,
    /// What a later list of a namespace has named so far.
    named: BTreeMap<String, BTreeSet<String>>,
    /// What is known of the objects.
    kept: Store<K>,
}

/// Every namespace's first list.
struct Listing<K> {
    /// Namespaces whose list is not complete.
    missing: BTreeSet<String>,
    /// Namespaces that may not be read.
    denied: BTreeSet<String>,
    /// Whether they are waited for all the same.
    is_patient: bool,
    /// Objects by namespace and name.
    found: BTreeMap<String, HashMap<String, K>>,
}

// === impl Merge ===

impl<K: Watched> Merge<K> {
    pub(super) fn new(namespaces: BTreeSet<String>, kept: Store<K>) -> Self {
        let (denied, found) = (BTreeSet::new(), BTreeMap::new());
        let listing = Listing { missing: namespaces, denied, is_patient: true, found };
        Merge { listing: Some(listing), named: BTreeMap::new(), kept }
    }

    /// What an event of one namespace is, seen from outside.
    fn take(&mut self, namespace: &str, event: Event<K>) -> Vec<Event<K>> {
        let Some(listing) = &mut self.listing else {
            return self.change(namespace, event);
        };
        let found = listing.found.entry(namespace.to_owned()).or_default();
        match event {
            Event::Init => {
                found.clear();
                listing.missing.insert(namespace.to_owned());
                // It may be read: what is on the list is waited for.
                listing.denied.remove(namespace);
            }
            Event::InitApply(object) | Event::Apply(object) => {
                found.insert(object.name_any(), object);
            }
            Event::Delete(object) => {
                found.remove(&object.name_any());
            }
            Event::InitDone => {
                listing.missing.remove(namespace);
            }
        }
        self.listed()
    }

    /// A namespace that may not be read. Should it come to be read later than all others, its list is one of changes.
    fn denied(&mut self, namespace: &str) -> Vec<Event<K>> {
        let Some(listing) = &mut self.listing else { return Vec::new() };
        listing.denied.insert(namespace.to_owned());
        if listing.is_patient { Vec::new() } else { self.without_denied() }
    }

    /// Namespaces that may not be read, such as one that is gone, hold up no other any more.
    fn without_denied(&mut self) -> Vec<Event<K>> {
        let Some(listing) = &mut self.listing else { return Vec::new() };
        listing.is_patient = false;
        listing.missing.retain(|namespace| !listing.denied.contains(namespace));
        self.listed()
    }

    /// The one list, once nothing is missing of it.
    fn listed(&mut self) -> Vec<Event<K>> {
        if self.listing.as_ref().is_none_or(|listing| !listing.missing.is_empty()) {
            return Vec::new();
        }
        let found = self.listing.take().map(|listing| listing.found).unwrap_or_default();
        let objects = found.into_values().flat_map(HashMap::into_values).map(Event::InitApply);
        [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).collect()
    }

    fn change(&mut self, namespace: &str, event: Event<K>) -> Vec<Event<K>> {
        match event {
            Event::Apply(_) | Event::Delete(_) => vec![event],
            Event::Init => {
                self.named.insert(namespace.to_owned(), BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.named.entry(namespace.to_owned()).or_default().insert(object.name_any());
                vec![Event::Apply(object)]
            }
            Event::InitDone => self.gone(namespace).into_iter().map(Event::Delete).collect(),
        }
    }

    /// What was known of a namespace and is not in its newest list.
    fn gone(&mut self, namespace: &str) -> Vec<K> {
        let named = self.named.remove(namespace).unwrap_or_default();
        let gone = self.kept.state_filter(|object: &K| {
            object.namespace().as_deref() == Some(namespace) && !named.contains(&object.name_any())
        });
        gone.iter().map(|object| K::clone(object)).collect()
    }
}

// === free functions ===

/// What the watches of namespaces tell, as one.
pub(super) fn merged<K: Watched>(
    watches: impl Stream<Item = (String, watcher::Result<Event<K>>)> + Send + 'static,
    mut merge: Merge<K>,
) -> Events<K> {
    let until = Instant::now() + PATIENCE;
    let patience = once(async move { sleep_until(until).await }).map(|()| None);
    let told = stream::select(watches.map(Some), patience).map(move |told| match told {
        Some((namespace, Ok(event))) => merge.take(&namespace, event).into_iter().map(Ok).collect(),
        Some((namespace, Err(error))) => {
            let is_out = is_forbidden(&error);
            let mut told = vec![Err(error)];
            if is_out {
                told.extend(merge.denied(&namespace).into_iter().map(Ok));
            }
            told
        }
        None => merge.without_denied().into_iter().map(Ok).collect(),
    });
    told.flat_map(stream::iter).boxed()
}

/// Whether a watch may not read what it is of.
fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) => {
            kube_ext::is_forbidden(cause)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{core::ObjectMeta, runtime::reflector::store};

    use super::*;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let (name, namespace) = (Some(name.to_owned()), Some(namespace.to_owned()));
        ConfigMap {
            metadata: ObjectMeta { name, namespace, ..ObjectMeta::default() },
            ..ConfigMap::default()
        }
    }

    fn words(events: &[Event<ConfigMap>]) -> Vec<String> {
        let of = |word: &str, object: &ConfigMap| format!("{word} {}", object.name_any());
        let word = |event: &Event<ConfigMap>| match event {
            Event::Init => "begin".to_owned(),
            Event::InitApply(object) => of("list", object),
            Event::InitDone => "end".to_owned(),
            Event::Apply(object) => of("apply", object),
            Event::Delete(object) => of("delete", object),
        };
        let mut words: Vec<String> = events.iter().map(word).collect();
        if words.len() > 2 {
            let last = words.len() - 1;
            words[1..last].sort();
        }
        words
    }

    #[test]
    fn lists_of_all_namespaces_are_one_list_and_later_ones_are_changes() {
        let (kept, mut writer) = store::<ConfigMap>();
        let mut merge = Merge::new(["a", "b"].map(str::to_owned).into(), kept);
        let mut tell = |namespace: &str, event| {
            let events = merge.take(namespace, event);
            events.iter().for_each(|event| writer.apply_watcher_event(event));
            words(&events)
        };
        for (namespace, event) in [
            ("a", Event::Init),
            ("a", Event::InitApply(object("a", "lost"))),
            // It broke off, and begins anew.
            ("a", Event::Init),
            ("a", Event::InitApply(object("a", "one"))),
            ("a", Event::InitDone),
            ("a", Event::Apply(object("a", "two"))),
            ("a", Event::Apply(object("a", "three"))),
            ("a", Event::Delete(object("a", "three"))),
            ("b", Event::Init),
            ("b", Event::InitApply(object("b", "four"))),
        ] {
            assert_eq!(tell(namespace, event), Vec::<String>::new());
        }
        let all = ["begin", "list four", "list one", "list two", "end"];
        assert_eq!(tell("b", Event::InitDone), all);
        assert_eq!(tell("a", Event::Delete(object("a", "two"))), ["delete two"]);
        assert_eq!(tell("b", Event::Init), Vec::<String>::new());
        assert_eq!(tell("b", Event::InitApply(object("b", "five"))), ["apply five"]);
        assert_eq!(tell("b", Event::InitDone), ["delete four"]);
    }

    #[test]
    fn namespace_that_may_not_be_read_holds_up_no_other() {
        let (kept, mut writer) = store::<ConfigMap>();
        let mut merge = Merge::new(["a", "gone"].map(str::to_owned).into(), kept);
        assert!(merge.take("a", Event::Init).is_empty());
        assert!(merge.take("a", Event::InitApply(object("a", "one"))).is_empty());
        assert!(merge.denied("gone").is_empty());
        assert!(merge.take("a", Event::InitDone).is_empty());
        // A list that broke off.
        assert!(merge.take("gone", Event::Init).is_empty());
        assert!(merge.denied("gone").is_empty());
        let events = merge.without_denied();
        events.iter().for_each(|event| writer.apply_watcher_event(event));
        assert_eq!(words(&events), ["begin", "list one", "end"]);
        assert!(merge.denied("gone").is_empty() && merge.without_denied().is_empty());
        // It is made, and may be read.
        assert!(merge.take("gone", Event::Init).is_empty());
        let events = merge.take("gone", Event::InitApply(object("gone", "two")));
        assert_eq!(words(&events), ["apply two"]);
        assert!(merge.take("gone", Event::InitDone).is_empty());
    }

    #[test]
    fn namespace_that_is_being_listed_at_last_is_waited_for() {
        let (kept, _) = store::<ConfigMap>();
        let mut merge = Merge::new(["a", "late"].map(str::to_owned).into(), kept);
        for event in [Event::Init, Event::InitDone] {
            assert!(merge.take("a", event).is_empty());
        }
        assert!(merge.denied("late").is_empty());
        assert!(merge.take("late", Event::Init).is_empty());
        assert!(merge.take("late", Event::InitApply(object("late", "one"))).is_empty());
        // Half a list would be taken for the whole of it.
        assert!(merge.without_denied().is_empty());
        assert!(merge.take("late", Event::InitApply(object("late", "two"))).is_empty());
        let all = ["begin", "list one", "list two", "end"];
        assert_eq!(words(&merge.take("late", Event::InitDone)), all);
    }

    #[test]
    fn namespace_that_is_refused_late_holds_up_no_other_either() {
        let (kept, _) = store::<ConfigMap>();
        let mut merge = Merge::new(["a", "gone"].map(str::to_owned).into(), kept);
        for event in [Event::Init, Event::InitApply(object("a", "one")), Event::InitDone] {
            assert!(merge.take("a", event).is_empty());
        }
        // Nobody has said yet that it may not be read.
        assert!(merge.without_denied().is_empty());
        assert_eq!(words(&merge.denied("gone")), ["begin", "list one", "end"]);
    }

    #[test]
    fn list_that_begins_anew_before_all_are_complete_is_waited_for() {
        let (kept, _) = store::<ConfigMap>();
        let mut merge = Merge::new(["a", "b"].map(str::to_owned).into(), kept);
        for event in [Event::Init, Event::InitDone, Event::Init] {
            assert!(merge.take("a", event).is_empty());
        }
        assert!(merge.take("b", Event::Init).is_empty());
        assert!(merge.take("b", Event::InitDone).is_empty());
        assert!(merge.take("a", Event::InitApply(object("a", "one"))).is_empty());
        assert_eq!(words(&merge.take("a", Event::InitDone)), ["begin", "list one", "end"]);
    }
}
