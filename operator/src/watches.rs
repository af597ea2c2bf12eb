//! Watches: of the whole cluster, or of some namespaces as if they were all there is.

mod merge;

use std::{collections::BTreeSet, mem::take};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream, select_all},
};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::Store,
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};

use self::merge::Merge;
use crate::kube_ext::Watched;

/// Where the operator looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Empty: everywhere.
    namespaces: BTreeSet<String>,
}

/// What a watch tells.
pub(crate) type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

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
            let events = retried(watcher(api, config.clone()), DefaultBackoff::default());
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
        let watches = select_all(self.namespaces.iter().map(of_namespace));
        merge::merged(watches, Merge::new(self.namespaces.clone(), kept))
    }
}

// === free functions ===

/// A watch that goes on when it fails, after waits that grow until it has listed something.
fn retried<K>(
    watch: impl Stream<Item = watcher::Result<Event<K>>>,
    backoff: impl Backoff,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    begun(watch).backoff(backoff)
}

/// Tells that a list begins with the first thing that is on it. Alone it would be taken for success, and a watch that may not
/// list would wait the shortest time before every try.
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

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

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
        let mut told = retried(tries, Counted(Arc::clone(&resets))).boxed();
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
            Ok(Event::InitApply(ConfigMap::default())),
            Ok(Event::InitDone),
            Ok(Event::Apply(ConfigMap::default())),
            Ok(Event::Init),
            Ok(Event::InitDone),
        ];
        let word = |event: &watcher::Result<Event<ConfigMap>>| match event {
            Ok(Event::Init) => "begin",
            Ok(Event::InitApply(_)) => "list",
            Ok(Event::InitDone) => "end",
            Ok(Event::Apply(_)) => "apply",
            Ok(Event::Delete(_)) => "delete",
            Err(_) => "error",
        };
        let told = begun(stream::iter(events)).collect::<Vec<_>>().await;
        let told: Vec<_> = told.iter().map(word).collect();
        assert_eq!(told, ["error", "begin", "list", "end", "apply", "begin", "end"]);
    }
}
