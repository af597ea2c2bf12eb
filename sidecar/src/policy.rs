//! The cache policy in force. It may be replaced at any time; a request goes by the one that it began with.

use std::{num::NonZeroU32, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use embark_crds::{
    contract::{CachePolicy, DefaultVector},
    digest,
};

use crate::{embedding::Vector, model::refusal::Refusal};

/// One model's policy, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The policy.
    pub cache: CachePolicy,
    /// The hash of its file, by which the operator knows it.
    pub hash: String,
    /// The full vector that stands for one that is not there.
    pub default_vector: Vector,
}

/// The policy of now.
#[derive(Debug)]
pub struct LivePolicy {
    current: ArcSwap<Policy>,
    trouble: ArcSwap<String>,
    dimensions: usize,
}

// === impl LivePolicy ===

impl LivePolicy {
    /// A policy for vectors of `dimensions`.
    pub fn new(policy: CachePolicy, dimensions: usize) -> Self {
        let current = ArcSwap::from_pointee(Policy::of(policy, dimensions));
        LivePolicy { current, trouble: ArcSwap::default(), dimensions }
    }

    /// The policy of now. Takes no lock; not to be held for long.
    pub fn load(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }

    /// Puts another in its place.
    pub fn replace(&self, policy: CachePolicy) {
        self.current.store(Arc::new(Policy::of(policy, self.dimensions)));
    }

    /// What of the policy's file is not followed, and why; or empty.
    pub fn trouble(&self) -> Arc<String> {
        self.trouble.load_full()
    }

    /// Notes what of the policy's file is not followed.
    pub fn set_trouble(&self, sentence: String) {
        self.trouble.store(Arc::new(sentence));
    }
}

// === impl Policy ===

impl Policy {
    fn of(cache: CachePolicy, dimensions: usize) -> Self {
        let default_vector = match &cache.default_vector {
            DefaultVector::Zero => Vector::from_values(&vec![0.0; dimensions]),
            DefaultVector::Values(values) => Vector::from_values(values),
        };
        Policy { hash: digest::of_part(&cache.to_json()), default_vector, cache }
    }
}

// === free functions ===

/// Whether a policy is one for vectors of `dimensions`.
///
/// # Errors
/// Its default vector is not one.
pub fn fits(policy: &CachePolicy, dimensions: NonZeroU32) -> Result<(), Refusal> {
    const FIELD: &str = "spec.cache.defaultVector.values";
    let DefaultVector::Values(values) = &policy.default_vector else {
        return Ok(());
    };
    if values.len() != dimensions.get() as usize {
        let sentence =
            format!("has {} numbers; the model's vectors have {dimensions}", values.len());
        return Err(Refusal::new(FIELD, sentence));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Refusal::new(FIELD, "has a number that single precision does not hold"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embark_crds::contract::{OnMiss, VERSION};

    use super::*;

    #[test]
    fn a_default_vector_of_another_length_is_refused_by_name() {
        let refused = |default_vector| {
            let policy = CachePolicy {
                version: VERSION,
                ttl: Duration::from_secs(1),
                ttl_jitter_percent: 0,
                stale_while_revalidate: Duration::ZERO,
                negative_ttl: Duration::ZERO,
                on_miss: OnMiss::Wait,
                wait_budget: None,
                default_vector,
                epoch: 0,
                allow_invalidation: false,
            };
            fits(&policy, NonZeroU32::MIN).err().map(|refusal| refusal.to_string())
        };
        assert_eq!(refused(DefaultVector::Zero), None);
        assert_eq!(refused(DefaultVector::Values(vec![1.0])), None);
        let sentence = "has 2 numbers; the model's vectors have 1";
        let sentence = format!("spec.cache.defaultVector.values: {sentence}");
        assert_eq!(refused(DefaultVector::Values(vec![1.0, 2.0])), Some(sentence));
        assert!(refused(DefaultVector::Values(vec![f32::INFINITY])).is_some());
    }
}
