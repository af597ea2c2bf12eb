//! Watches: of the whole cluster, or of some namespaces as if they were all there is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::take,
    time::Duration,
};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream, select_all},
};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::Store,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::Instant;

use crate::kube_ext::{self, Watched};

/// How long a namespace is waited for that may not be read: an API server that has just started may know no roles yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the operator looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Empty: everywhere.
    namespaces: BTreeSet<String>,
}

/// What a watch tells.
pub(crate) type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// Makes one watch of several: one list in the beginning, and after that changes alone. A later list of one namespace, as
/// after a watch that broke off, becomes the changes that it amounts to.
struct Merge<K: Watched> {
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
    /// Since when a namespace may not be read.
    denied: BTreeMap<String, Instant>,
    /// Objects by namespace and name.
    found: BTreeMap<String, HashMap<String, K>>,
}

// === impl Scope ===

impl Scope {
    pub(crate) fn new(namespaces: impl IntoIterator<Item = String>) -> Self {
        Scope { namespaces: namespaces.into_iter().collect() }
    }

    /// What can be asked for the objects of a kind: one for everywhere, or one for each namespace.
    pub(crate) fn each<K: Watched>(&self, client: &Client) -> Vec<Api<K>> {
        if self.namespaces.is_empty() {
            return vec![Api::all(client.clone())];
        }
        let of = |namespace: &String| Api::namespaced(client.clone(), namespace);
        self.namespaces.iter().map(of).collect()
    }

    /// Watches a kind, and goes on when a watch fails, less and less often. `kept` has what was told so far.
    pub(crate) fn watch<K: Watched>(
        &self,
        client: &Client,
        config: &watcher::Config,
        kept: Store<K>,
    ) -> Events<K> {
        let watch = |api: Api<K>| {
            let events = begun(watcher(api, config.clone())).default_backoff();
            // Who owns which field is long, and of no use here.
            events.modify(|object| object.managed_fields_mut().clear())
        };
        if self.namespaces.is_empty() {
            return watch(Api::all(client.clone())).boxed();
        }
        let of_namespace = |namespace: &String| {
            let name = namespace.clone();
            watch(Api::namespaced(client.clone(), namespace))
                .map(move |event| (name.clone(), event))
                .boxed()
        };
        let mut merge = Merge::new(self.namespaces.clone(), kept);
        select_all(self.namespaces.iter().map(of_namespace))
            .map(move |(namespace, event)| match event {
                Ok(event) => merge.take(&namespace, event).into_iter().map(Ok).collect(),
                Err(error) => {
                    let is_out = is_forbidden(&error);
                    let now = Instant::now();
                    let listed = if is_out { merge.denied(&namespace, now) } else { Vec::new() };
                    let mut told: Vec<watcher::Result<Event<K>>> = vec![Err(error)];
                    told.extend(listed.into_iter().map(Ok));
                    told
                }
            })
            .flat_map(stream::iter)
            .boxed()
    }
}

// === impl Merge ===

impl<K: Watched> Merge<K> {
    fn new(namespaces: BTreeSet<String>, kept: Store<K>) -> Self {
        let (denied, found) = (BTreeMap::new(), BTreeMap::new());
        let listing = Listing { missing: namespaces, denied, found };
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
            }
            Event::InitApply(object) | Event::Apply(object) => {
                found.insert(object.name_any(), object);
            }
            Event::Delete(object) => {
                found.remove(&object.name_any());
            }
            Event::InitDone => {
                listing.missing.remove(namespace);
                listing.denied.remove(namespace);
            }
        }
        self.listed()
    }

    /// A namespace that nothing may be read in for a while, such as one that is gone, holds up no other. Should it come to be
    /// read, its list is one of changes.
    fn denied(&mut self, namespace: &str, now: Instant) -> Vec<Event<K>> {
        let Some(listing) = &mut self.listing else { return Vec::new() };
        let since = *listing.denied.entry(namespace.to_owned()).or_insert(now);
        if now.duration_since(since) < PATIENCE {
            return Vec::new();
        }
        listing.missing.remove(namespace);
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

/// Tells that a list begins with the first thing that is on it. Alone it would be taken for success, and a watch that may not
/// list would try again at once, for ever.
fn begun<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let mut begins = false;
    events.flat_map(move |event| {
        let told = match (take(&mut begins), event) {
            (_, Ok(Event::Init)) => {
                begins = true;
                [None, None]
            }
            (true, Ok(first)) => [Some(Ok(Event::Init)), Some(Ok(first))],
            (_, event) => [Some(event), None],
        };
        stream::iter(told.into_iter().flatten())
    })
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
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        core::ObjectMeta,
        runtime::{reflector::store, utils::Backoff},
    };

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

    /// Waits no time, and counts how often it was begun anew.
    struct Counted(Arc<AtomicUsize>);

    impl Iterator for Counted {
        type Item = Duration;

        fn next(&mut self) -> Option<Duration> {
            Some(Duration::ZERO)
        }
    }

    impl Backoff for Counted {
        fn reset(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn watch_that_may_not_list_tries_less_and_less_often() {
        let resets = Arc::new(AtomicUsize::new(0));
        // Each try begins a list.
        let tries = stream::iter((0..12).map(|n| match n % 2 {
            0 => Ok(Event::<ConfigMap>::Init),
            _ => Err(watcher::Error::NoResourceVersion),
        }));
        let mut told = begun(tries).backoff(Counted(Arc::clone(&resets))).boxed();
        for _ in 0..6 {
            assert!(told.next().await.unwrap().is_err());
        }
        assert_eq!(resets.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn list_begins_with_the_first_thing_on_it() {
        let events = [
            Ok(Event::Init),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(object("a", "one"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(object("a", "two"))),
            Ok(Event::Init),
            Ok(Event::InitDone),
        ];
        let told = begun(stream::iter(events)).collect::<Vec<_>>().await;
        assert!(told[0].is_err());
        let told: Vec<_> = told.into_iter().skip(1).map(Result::unwrap).collect();
        assert_eq!(
            told.iter().flat_map(|event| words(std::slice::from_ref(event))).collect::<Vec<_>>(),
            ["begin", "list one", "end", "apply two", "begin", "end"]
        );
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
        let begin = Instant::now();
        assert!(merge.denied("gone", begin).is_empty());
        assert!(merge.take("a", Event::InitDone).is_empty());
        assert!(merge.denied("gone", begin + PATIENCE / 2).is_empty());
        // A list that broke off.
        assert!(merge.take("gone", Event::Init).is_empty());
        let events = merge.denied("gone", begin + PATIENCE);
        events.iter().for_each(|event| writer.apply_watcher_event(event));
        assert_eq!(words(&events), ["begin", "list one", "end"]);
        assert!(merge.denied("gone", begin + 2 * PATIENCE).is_empty());
        // It is made, and may be read.
        assert!(merge.take("gone", Event::Init).is_empty());
        let events = merge.take("gone", Event::InitApply(object("gone", "two")));
        assert_eq!(words(&events), ["apply two"]);
        assert!(merge.take("gone", Event::InitDone).is_empty());
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
