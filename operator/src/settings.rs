//! What a run of the operator is told from outside.

use std::{net::SocketAddr, time::Duration};

use crate::{args, watches::Scope, webhook};

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The image of the pods that serve models.
    pub(crate) sidecar_image: String,
    /// Where probes and metrics are served.
    pub(crate) listen: SocketAddr,
    /// The namespaces whose models are served.
    pub(crate) scope: Scope,
    /// How a leader is elected.
    pub(crate) lease: LeaseSettings,
    /// The webhook that gives pods a sidecar; `None`: there is none.
    pub(crate) webhook: Option<webhook::Settings>,
}

/// How a leader is elected. The durations are those of Kubernetes' own components.
#[derive(Clone, Debug)]
pub(crate) struct LeaseSettings {
    /// The Lease's namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// What this replica calls itself.
    pub(crate) identity: String,
    /// How long others leave a lease alone that is not renewed.
    pub(crate) duration: Duration,
    /// How long a leader goes on without a renewal. Shorter than `duration`: it has stopped before another may begin.
    pub(crate) renew_within: Duration,
    /// How often the lease is renewed, or looked at.
    pub(crate) retry: Duration,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn of(arguments: &args::Run) -> Self {
        Settings {
            sidecar_image: arguments.sidecar_image.clone(),
            listen: arguments.listen,
            scope: Scope::new(arguments.watch_namespaces.iter().cloned()),
            webhook: webhook::Settings::of(&arguments.webhook, &arguments.namespace),
            lease: LeaseSettings {
                namespace: arguments.namespace.clone(),
                name: arguments.lease_name.clone(),
                identity: arguments.identity.clone(),
                duration: Duration::from_secs(15),
                renew_within: Duration::from_secs(10),
                retry: Duration::from_secs(2),
            },
        }
    }
}
