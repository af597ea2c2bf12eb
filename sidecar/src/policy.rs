//! The cache policy in force. It may be replaced at any time; a request goes by the one that it began with.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use embark_crds::{
    contract::{CachePolicy, DefaultVector},
    digest,
};

use crate::embedding::Vector;

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
    dimensions: usize,
}

// === impl LivePolicy ===

impl LivePolicy {
    /// A policy for vectors of `dimensions`.
    pub fn new(policy: CachePolicy, dimensions: usize) -> Self {
        let current = ArcSwap::from_pointee(Policy::of(policy, dimensions));
        LivePolicy { current, dimensions }
    }

    /// The policy of now. Takes no lock; not to be held for long.
    pub fn load(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }

    /// Puts another in its place.
    pub fn replace(&self, policy: CachePolicy) {
        self.current.store(Arc::new(Policy::of(policy, self.dimensions)));
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
