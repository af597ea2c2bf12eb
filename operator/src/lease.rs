//! Which replica leads: the one that holds a Lease. Time is what this process observes; no clock of another machine is
//! believed. A leader that cannot renew has stopped before another may begin.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::{gate::Term, settings::LeaseSettings};

/// Takes and holds the Lease.
pub(crate) struct Elector {
    api: Api<Lease>,
    settings: LeaseSettings,
    /// The Lease as another replica left it, and since when it has been so.
    seen: Option<(LeaseSpec, Instant)>,
    /// When this replica asked for the last renewal that it got. Others may have seen it since then: its answer can be late.
    renewed: Instant,
    /// How long this replica's work may go on.
    term: Term,
}

/// What a look at the Lease led to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Ours,
    Others { holder: String },
}

// === impl Elector ===

impl Elector {
    pub(crate) fn new(client: Client, settings: LeaseSettings, term: Term) -> Self {
        let api = Api::namespaced(client, &settings.namespace);
        Elector { api, settings, seen: None, renewed: Instant::now(), term }
    }

    /// Notes that the Lease was renewed, by what was asked for then.
    fn renewed(&mut self, asked: Instant) {
        self.renewed = asked;
        self.term.extend(asked + self.settings.renew_within);
    }

    /// Waits until this replica holds the Lease. `heard` is called once it is known who holds it.
    pub(crate) async fn acquire(&mut self, heard: impl Fn()) {
        let mut told = None;
        loop {
            let asked = Instant::now();
            // A look that hangs is as good as one that failed.
            match timeout(self.settings.renew_within, self.turn()).await {
                Ok(Ok(Turn::Ours)) => {
                    self.renewed(asked);
                    break;
                }
                Ok(Ok(Turn::Others { holder })) if told.as_ref() != Some(&holder) => {
                    heard();
                    info!(leader = holder, "waiting: another replica leads");
                    told = Some(holder);
                }
                Ok(Ok(Turn::Others { .. })) => {}
                Ok(Err(error)) => warn!("the lease cannot be had: {error}"),
                Err(_) => warn!("the lease cannot be had: no answer in time"),
            }
            sleep_until(Instant::now() + self.settings.retry).await;
        }
        heard();
        info!(identity = self.settings.identity, "leading");
    }

    /// Renews the Lease until it is lost, or could be before long.
    pub(crate) async fn hold(&mut self) {
        loop {
            let deadline = self.renewed + self.settings.renew_within;
            sleep_until((Instant::now() + self.settings.retry).min(deadline)).await;
            let asked = Instant::now();
            match timeout_at(deadline, self.turn()).await {
                Ok(Ok(Turn::Ours)) => self.renewed(asked),
                Ok(Ok(Turn::Others { holder })) => {
                    self.term.end();
                    warn!(leader = holder, "the lease was taken");
                    return;
                }
                Ok(Err(error)) => debug!("the lease was not renewed: {error}"),
                Err(_) => {}
            }
            if Instant::now() >= self.renewed + self.settings.renew_within {
                warn!("the lease could not be renewed within {:?}", self.settings.renew_within);
                return;
            }
        }
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    pub(crate) async fn release(&mut self) {
        self.term.end();
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.settings.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.replace(&lease).await
        };
        match timeout(self.settings.retry, released).await {
            Ok(Ok(())) => debug!("the lease is released"),
            Ok(Err(error)) => debug!("the lease was not released: {error}"),
            Err(_) => debug!("the lease was not released in time"),
        }
    }

    /// Looks at the Lease, and takes or renews it where that may be.
    async fn turn(&mut self) -> kube::Result<Turn> {
        let Some(mut lease) = self.api.get_opt(&self.settings.name).await? else {
            return self.create().await;
        };
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let is_ours = holder == self.settings.identity;
        if !is_ours && !holder.is_empty() && !self.has_ended(spec) {
            return Ok(Turn::Others { holder });
        }
        let now = MicroTime(Timestamp::now());
        if !is_ours {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.lease_duration_seconds = Some(self.seconds());
        spec.renew_time = Some(now);
        self.replace(&lease).await?;
        self.seen = None;
        Ok(Turn::Ours)
    }

    async fn create(&self) -> kube::Result<Turn> {
        let now = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: Some(self.seconds()),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        self.api.create(&PostParams::default(), &lease).await?;
        Ok(Turn::Ours)
    }

    /// Writes the Lease, unless somebody else did since it was read: the server compares resource versions.
    async fn replace(&self, lease: &Lease) -> kube::Result<()> {
        self.api.replace(&self.settings.name, &PostParams::default(), lease).await.map(drop)
    }

    /// Whether the Lease has been as it is for so long that its holder must have stopped.
    fn has_ended(&mut self, spec: &LeaseSpec) -> bool {
        let now = Instant::now();
        match &self.seen {
            Some((seen, since)) if seen == spec => now >= *since + self.settings.duration,
            _ => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX)
    }
}
