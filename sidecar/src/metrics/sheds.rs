//! What is refused so that the rest goes on.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::ReasonLabels;
use crate::error::ErrorKind;

/// Why items are refused that could be answered at another time.
const OF_ITEMS: [ErrorKind; 3] =
    [ErrorKind::QueueFull, ErrorKind::WaitTooLong, ErrorKind::Draining];

#[derive(Clone, Debug)]
pub(super) struct ShedFamilies {
    sheds: Family<ReasonLabels, Counter>,
}

/// One model's handles.
#[derive(Clone, Debug)]
pub(super) struct Sheds([Counter; OF_ITEMS.len()]);

// === impl ShedFamilies ===

impl ShedFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = ShedFamilies { sheds: Family::default() };
        let help = "Items refused for want of room or time, and whole calls for want of memory (before their model is \
                    known, so with none), by reason";
        registry.register("sheds", help, families.sheds.clone());
        // Every series is there from the start, so that the first one is seen as a rise.
        families.of_calls();
        families
    }

    pub(super) fn handles(&self, model: &str) -> Sheds {
        Sheds(OF_ITEMS.map(|kind| self.counter(model, kind)))
    }

    /// Calls refused for want of memory.
    pub(super) fn of_calls(&self) -> Counter {
        self.counter("", ErrorKind::Memory)
    }

    fn counter(&self, model: &str, kind: ErrorKind) -> Counter {
        let labels = ReasonLabels { model: model.to_owned(), reason: kind.reason() };
        self.sheds.get_or_create_owned(&labels)
    }
}

// === impl Sheds ===

impl Sheds {
    /// Counts an item that failed, if it was for such a reason.
    pub(super) fn count(&self, kind: ErrorKind) {
        if let Some(at) = OF_ITEMS.iter().position(|shed| *shed == kind) {
            self.0[at].inc();
        }
    }
}
