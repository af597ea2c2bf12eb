//! What befalls a server in a soak, beside its callers.

use std::{fs, io::Write as _, path::Path, time::Duration};

use embark_sidecar::pb::client::{
    InvalidateRequest, ItemKeys, cache_service_client::CacheServiceClient,
    invalidate_request::Scope,
};
use embark_tests::{
    Manifest, Mount, Random, Sidecar,
    sidecar::{LIMIT, Options, items, pass, until},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use super::{DIMENSIONS, callers::Address};

/// How often the policy is another one, and how often something is forgotten.
const POLICY_EVERY: Duration = Duration::from_millis(1700);
const FORGOTTEN_EVERY: Duration = Duration::from_millis(900);
/// How long the disk stays read-only: for longer than the server's first pause before it tries it again.
const READ_ONLY_FOR: Duration = Duration::from_secs(7);
/// How long what a disk does is waited for; where it takes longer, the next thing happens to it.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest that a round of the disk takes; none begins with less time left.
const ROUND: Duration = Duration::from_secs(35);

/// What befalls it, and by what means.
pub(super) struct Trouble<'a> {
    sidecar: &'a Sidecar,
    manifest: Manifest,
    options: Options,
    caches: CacheServiceClient<Channel>,
    address: Address,
}

// === impl Trouble ===

impl<'a> Trouble<'a> {
    pub(super) async fn new(
        sidecar: &'a Sidecar,
        (manifest, options): (Manifest, Options),
        address: &Address,
    ) -> Self {
        let (caches, address) = (sidecar.cache().await, address.clone());
        Trouble { sidecar, manifest, options, caches, address }
    }

    /// Makes trouble until then, and leaves the disk as it was.
    pub(super) async fn make(&self, mount: &Mount, (end, random): (Instant, &mut Random)) {
        let mut own = || Random::new(random.number());
        let (of_policies, of_callers) = (own(), own());
        tokio::join!(
            self.change_policies(end, of_policies),
            self.forget(end, of_callers),
            self.vex_disk(end, mount),
        );
    }

    /// Back to a policy under which every text is computed and kept.
    pub(super) async fn calm(&self) {
        let before = self.policy().await;
        let manifest = self.manifest.clone().with("/spec/cache/epoch", 1_000_000);
        let _ = self.options.with(&manifest);
        until("the last policy is in force", async || self.policy().await != before).await;
        until("the disk is healthy", async || self.disk().await == "healthy").await;
    }

    /// Writes other policies, in place: some are read half written, and refused.
    async fn change_policies(&self, end: Instant, mut random: Random) {
        let mut epoch = 0;
        while Instant::now() < end {
            pass(POLICY_EVERY).await;
            epoch += u64::from(random.below(6) == 0);
            let of_ones = json!({"type": "Values", "values": vec![0.5; usize::try_from(DIMENSIONS).unwrap()]});
            let changes: [(&str, Value); 6] = [
                ("ttl", json!(["1h", "300ms", "3s"][random.index(3)])),
                ("ttlJitterPercent", json!(random.below(50))),
                ("staleWhileRevalidate", json!(["0s", "1h"][random.index(2)])),
                ("onMiss", json!(["Wait", "Wait", "ReturnDefault", "Fail"][random.index(4)])),
                ("epoch", json!(epoch)),
                ("defaultVector", if random.below(2) == 0 { of_ones } else { json!({}) }),
            ];
            let manifest =
                changes.into_iter().fold(self.manifest.clone(), |manifest, (at, value)| {
                    manifest.with(&format!("/spec/cache/{at}"), value)
                });
            let _ = self.options.with(&manifest);
        }
    }

    /// Has the server forget everything, or some texts.
    async fn forget(&self, end: Instant, mut random: Random) {
        let mut caches = self.caches.clone();
        while Instant::now() < end {
            pass(FORGOTTEN_EVERY).await;
            let all = random.below(10) == 0;
            let reference = &self.address.reference;
            let texts = (0..16).map(|_| reference.texts[reference.choose(&mut random)].as_str());
            let scope = match all {
                true => Scope::All(true),
                false => Scope::Items(ItemKeys { items: items(&texts.collect::<Vec<_>>()) }),
            };
            let request = InvalidateRequest { scope: Some(scope), ..InvalidateRequest::default() };
            let sent = Instant::now();
            let answer = timeout(LIMIT, caches.invalidate(request)).await.expect("unanswered");
            match answer {
                Ok(_) if all => *self.address.forgotten.lock() = Some(sent),
                Ok(_) => {}
                // A disk that is full or read-only cannot be told.
                Err(status) => {
                    let reason = status.get_details_error_info().map(|info| info.reason);
                    assert_eq!(reason.as_deref(), Some("NOT_DURABLE"), "{status:?}");
                    assert_eq!(status.code(), Code::Internal);
                }
            }
        }
    }

    /// Fills the disk up, makes it read-only, and frees it, again and again.
    async fn vex_disk(&self, end: Instant, mount: &Mount) {
        let hog = mount.path().join("hog");
        // What it does without trouble comes first.
        pass(Duration::from_secs(5)).await;
        while Instant::now() + ROUND < end {
            fill_up(&hog);
            self.wait_for_disk("degraded").await;
            let read_only = mount.read_only();
            pass(READ_ONLY_FOR).await;
            drop(read_only);
            fs::remove_file(&hog).unwrap();
            self.wait_for_disk("healthy").await;
        }
        // The rest of the time without.
        tokio::time::sleep_until(end).await;
    }

    async fn wait_for_disk(&self, state: &str) {
        let began = Instant::now();
        while self.disk().await != state && began.elapsed() < PATIENCE {
            pass(Duration::from_millis(100)).await;
        }
        println!("the disk is {} after {:?}", self.disk().await, began.elapsed());
    }

    async fn disk(&self) -> String {
        let status = self.sidecar.model_status("soak").await;
        status["cache"]["disk"]["state"].as_str().unwrap().to_owned()
    }

    async fn policy(&self) -> String {
        self.sidecar.model_status("soak").await["policyHash"].as_str().unwrap().to_owned()
    }
}

// === free functions ===

/// Leaves no byte free.
fn fill_up(hog: &Path) {
    let mut hog = fs::File::create(hog).unwrap();
    while hog.write_all(&[1; 4096]).is_ok() {}
}
