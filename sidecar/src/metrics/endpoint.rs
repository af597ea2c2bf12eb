//! Who came to the door and was not let in, and what became of changes of the files of secrets.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What files of secrets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// Certificates and their key.
    Tls,
    /// Bearer tokens.
    Token,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    secret: &'static str,
    outcome: &'static str,
}

/// The process's handles.
#[derive(Clone, Debug, Default)]
pub struct EndpointMetrics {
    /// Calls refused for want of memory, before their model is known.
    pub calls_shed: Counter,
    unauthenticated: Counter,
    handshake_failures: Counter,
    reloads: Family<ReloadLabels, Counter>,
}

// === impl SecretKind ===

impl SecretKind {
    const ALL: [SecretKind; 2] = [SecretKind::Tls, SecretKind::Token];

    fn label(self) -> &'static str {
        match self {
            SecretKind::Tls => "tls",
            SecretKind::Token => "token",
        }
    }
}

// === impl EndpointMetrics ===

impl EndpointMetrics {
    pub(super) fn registered(registry: &mut Registry, calls_shed: Counter) -> Self {
        let metrics = EndpointMetrics { calls_shed, ..EndpointMetrics::default() };
        let help = "Calls without a token that the server knows";
        registry.register("unauthenticated_requests", help, metrics.unauthenticated.clone());
        let help = "Connections that ended before they were encrypted";
        registry.register("tls_handshake_failures", help, metrics.handshake_failures.clone());
        let help = "Changes of files of secrets, by what became of them";
        registry.register("secret_reloads", help, metrics.reloads.clone());
        // Every series is there from the start, so that the first failure is seen as a rise.
        for kind in SecretKind::ALL {
            metrics.reloads(kind, "applied");
            metrics.reloads(kind, "refused");
        }
        metrics
    }

    /// Counts a call that was not let in.
    pub fn unauthenticated(&self) {
        self.unauthenticated.inc();
    }

    /// Counts a client that did not agree on encryption.
    pub fn handshake_failed(&self) {
        self.handshake_failures.inc();
    }

    /// Counts a change that is in force, or was refused.
    pub fn reloaded(&self, kind: SecretKind, is_in_force: bool) {
        self.reloads(kind, if is_in_force { "applied" } else { "refused" }).inc();
    }

    fn reloads(&self, kind: SecretKind, outcome: &'static str) -> Counter {
        self.reloads.get_or_create_owned(&ReloadLabels { secret: kind.label(), outcome })
    }
}
