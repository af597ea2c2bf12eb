//! What became of changes of the files that cache policies come from.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reload {
    /// The new policy is in force.
    Applied,
    /// What the file says is no policy for the model; the one before stays in force.
    Refused,
    /// The file could not be read; the policy stays in force.
    Unreadable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct PolicyFamilies {
    reloads: Family<ReloadLabels, Counter>,
}

/// One model's handles.
#[derive(Clone, Debug)]
pub struct PolicyMetrics([Counter; Reload::ALL.len()]);

// === impl Reload ===

impl Reload {
    const ALL: [Reload; 3] = [Reload::Applied, Reload::Refused, Reload::Unreadable];

    fn label(self) -> &'static str {
        match self {
            Reload::Applied => "applied",
            Reload::Refused => "refused",
            Reload::Unreadable => "unreadable",
        }
    }
}

// === impl PolicyFamilies ===

impl PolicyFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = PolicyFamilies::default();
        let help = "Changes of the file of a model's cache policy, by what became of them";
        registry.register("policy_reloads", help, families.reloads.clone());
        families
    }

    /// Every outcome is there from the start, so that the first failure is seen as a rise.
    pub(super) fn handles(&self, model: &str) -> PolicyMetrics {
        let handle = |outcome: Reload| {
            let labels = ReloadLabels { model: model.to_owned(), outcome: outcome.label() };
            self.reloads.get_or_create_owned(&labels)
        };
        PolicyMetrics(Reload::ALL.map(handle))
    }
}

// === impl PolicyMetrics ===

impl PolicyMetrics {
    /// Counts a change.
    pub fn count(&self, outcome: Reload) {
        self.0[outcome as usize].inc();
    }
}
