//! Which models are looked at again for what watches tell of their children.

use futures_util::{Stream, StreamExt as _, future::ready, stream::BoxStream};
use kube::{
    ResourceExt as _,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};

use crate::{
    kube_ext::{Guarded, Object, chain},
    names,
};

/// Models to look at again.
pub(crate) type Triggers = BoxStream<'static, ObjectRef<Guarded>>;

/// The models that a watch tells of.
pub(crate) fn triggers_of<K: Object>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> Triggers {
    let objects = events.touched_objects();
    let mut is_failing = false;
    let models = objects.filter_map(move |object| {
        let object = match object {
            Ok(object) => object,
            Err(error) => {
                // Once, until it works again: the first try may come before the definition, the hundredth tells nothing.
                if !std::mem::replace(&mut is_failing, true) {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, "a watch failed and is tried again: {}", chain(&error));
                }
                return ready(None);
            }
        };
        is_failing = false;
        ready(model_ref(&object))
    });
    models.boxed()
}

/// The model that an object of ours belongs to.
pub(crate) fn model_ref<K: Object>(object: &K) -> Option<ObjectRef<Guarded>> {
    let namespace = object.namespace()?;
    let model = names::model_of(object.labels())?;
    Some(ObjectRef::new(model).within(&namespace))
}
