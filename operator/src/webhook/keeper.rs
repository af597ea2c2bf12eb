//! Keeps the certificate that is shown: of a Secret that every replica may write, or of files that somebody else writes. Looks
//! again and again, so that whatever somebody does to it is put right.

use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use parking_lot::RwLock;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use super::{
    certificate::{Pair, Shown},
    kept::{Judged, Kept, Terms},
};
use crate::{
    kube_ext::{FIELD_MANAGER, chain},
    metrics::Metrics,
    names,
};

/// How often in a row others may be first.
const TRIES: usize = 8;
/// The most bytes of a mounted file.
const MOST_BYTES: u64 = 256 * 1024;

/// The certificate that is shown now.
#[derive(Debug, Default)]
pub(super) struct Certificate(RwLock<Option<Arc<CertifiedKey>>>);

/// Where certificates come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A Secret of the operator's own making.
    Secret {
        /// Its name.
        secret: String,
        /// What is told who vouches for it.
        configuration: String,
        /// What certificates are for.
        terms: Terms,
    },
    /// Files of somebody else's.
    Folder(PathBuf),
}

/// Keeps the certificate.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) source: Source,
    pub(super) every: Duration,
    /// How long a look may take: an answer that never comes would be waited for without end.
    pub(super) within: Duration,
    pub(super) certificate: Arc<Certificate>,
    /// Why nothing is shown yet; empty: something is.
    pub(super) readiness: watch::Sender<String>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why the certificate could not be looked after.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read or write Secret {0}")]
    Secret(String, #[source] kube::Error),
    #[error("failed to read or write MutatingWebhookConfiguration {0}")]
    Configuration(String, #[source] kube::Error),
    #[error("there is no MutatingWebhookConfiguration {0} to tell of it")]
    Nobody(String),
    #[error("{0}")]
    Certificate(String),
    #[error("others have written Secret {0} each time that it was to be written")]
    Raced(String),
    #[error("failed to read {0}")]
    File(PathBuf, #[source] std::io::Error),
    #[error("the look at the files ended early")]
    Panicked,
    #[error("the look at it was not over within {0:?}")]
    TooLong(Duration),
}

/// Where one look at the Secret ends.
enum Look {
    /// It is as it should be: what is shown, and who vouches for it.
    Done(Shown, String),
    /// It was written, by us or by others.
    Again,
}

// === impl Certificate ===

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

// === impl Keeper ===

impl Keeper {
    /// Looks after it until the task is aborted.
    pub(super) async fn keep(self) {
        let mut said = String::new();
        let mut looks = interval(self.every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let looked = timeout(self.within, self.look()).await;
            let outcome = looked.unwrap_or(Err(Error::TooLong(self.within)));
            let why = outcome.err().map(|error| chain(&error)).unwrap_or_default();
            // Once, until it is another.
            if said != why && !why.is_empty() {
                warn!("the webhook's certificate: {why}");
            }
            if self.certificate.0.read().is_none() {
                self.readiness.send_replace(format!("the webhook has no certificate yet: {why}"));
            }
            said = why;
        }
    }

    async fn look(&self) -> Result<(), Error> {
        match &self.source {
            Source::Folder(folder) => self.look_at_files(folder.clone()).await,
            Source::Secret { secret, configuration, terms } => {
                for _ in 0..TRIES {
                    // First: what the Secret says then is never older than what it is compared with.
                    let told = self.configuration(configuration).await?;
                    match self.look_at_secret(secret, terms).await? {
                        Look::Again => {}
                        Look::Done(shown, authorities) => {
                            self.show(&shown);
                            let told = told.ok_or_else(|| Error::Nobody(configuration.clone()))?;
                            return self.tell(told, &authorities).await;
                        }
                    }
                }
                Err(Error::Raced(secret.clone()))
            }
        }
    }

    /// Any replica makes and replaces it; the API server's answer says who was first.
    async fn look_at_secret(&self, name: &str, terms: &Terms) -> Result<Look, Error> {
        let failed = |error| Error::Secret(name.to_owned(), error);
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let now = Timestamp::now();
        let Some(mut secret) = api.get_opt(name).await.map_err(failed)? else {
            let secret = self.secret(name, &Kept::new(terms, now).map_err(Error::Certificate)?);
            return match api.create(&parameters, &secret).await {
                Ok(_) => {
                    info!(secret = name, "made a certificate for the webhook");
                    Ok(Look::Again)
                }
                Err(error) if is_conflict(&error) => Ok(Look::Again),
                Err(error) => Err(failed(error)),
            };
        };
        let kept = Kept::read(&secret.data.take().unwrap_or_default());
        let judged = kept.and_then(|kept| Ok((kept.judge(terms, now)?, kept.authorities)));
        let (why, instead) = match judged {
            Ok((Judged::Good(shown), authorities)) => return Ok(Look::Done(shown, authorities)),
            Ok((Judged::Change(shown, why, instead), _)) => {
                self.show(&shown);
                (why.to_owned(), instead)
            }
            Err(why) => {
                warn!(secret = name, "what it holds is of no use and is replaced: {why}");
                (why, Kept::new(terms, now).map_err(Error::Certificate)?)
            }
        };
        secret.data = Some(instead.data());
        match api.replace(name, &parameters, &secret).await {
            Ok(_) => {
                info!(secret = name, "wrote the webhook's certificates anew: {why}");
                Ok(Look::Again)
            }
            Err(error) if is_conflict(&error) => Ok(Look::Again),
            Err(error) => Err(failed(error)),
        }
    }

    fn secret(&self, name: &str, kept: &Kept) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(names::own_labels()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(kept.data()),
            ..Secret::default()
        }
    }

    async fn configuration(
        &self,
        name: &str,
    ) -> Result<Option<MutatingWebhookConfiguration>, Error> {
        let api = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        api.get_opt(name).await.map_err(|error| Error::Configuration(name.to_owned(), error))
    }

    /// Tells the API server who vouches for what is shown, if it does not know.
    async fn tell(&self, told: MutatingWebhookConfiguration, vouchers: &str) -> Result<(), Error> {
        let name = told.name_any();
        let differs = |bundle: &Option<k8s_openapi::ByteString>| {
            bundle.as_ref().is_none_or(|bundle| bundle.0 != vouchers.as_bytes())
        };
        let webhooks = told.webhooks.iter().flatten();
        let webhooks = webhooks.filter(|webhook| differs(&webhook.client_config.ca_bundle));
        let bundle = k8s_openapi::ByteString(vouchers.as_bytes().to_vec());
        let webhooks: Vec<Value> = webhooks
            .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }))
            .collect();
        if webhooks.is_empty() {
            return Ok(());
        }
        // Nobody has written it since it was read, or it is refused and looked at again.
        let metadata = json!({ "resourceVersion": told.resource_version() });
        let patch = Patch::Strategic(json!({ "metadata": metadata, "webhooks": webhooks }));
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let api = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        match api.patch(&name, &parameters, &patch).await {
            Ok(_) => {
                info!(configuration = name, "told the API server which authority the webhook has");
                Ok(())
            }
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(Error::Configuration(name, error)),
        }
    }

    async fn look_at_files(&self, folder: PathBuf) -> Result<(), Error> {
        let read = spawn_blocking(move || read(&folder)).await.map_err(|_| Error::Panicked)?;
        let shown = read?.shown().map_err(Error::Certificate)?;
        self.show(&shown);
        Ok(())
    }

    /// Shows it to whoever connects from now on.
    fn show(&self, shown: &Shown) {
        let is_new = {
            let mut current = self.certificate.0.write();
            let is_new = current.as_ref().is_none_or(|current| current.cert != shown.key.cert);
            if is_new {
                *current = Some(Arc::clone(&shown.key));
            }
            is_new
        };
        if is_new {
            info!(until = %shown.expires, "the webhook shows another certificate");
            self.metrics.webhook.certificate_ends(shown.expires.as_second());
            self.readiness.send_replace(String::new());
        }
    }
}

// === free functions ===

fn read(folder: &Path) -> Result<Pair, Error> {
    use std::io::Read as _;
    let text = |name: &str| {
        let path = folder.join(name);
        let read = || {
            let mut text = String::new();
            fs::File::open(&path)?.take(MOST_BYTES).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error| Error::File(path.clone(), error))
    };
    Ok(Pair { certificate: text("tls.crt")?, key: text("tls.key")? })
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use futures_util::future::{BoxFuture, FutureExt as _};
    use http::{Request, Response};
    use kube::client::Body;
    use prometheus_client::metrics::counter::Counter;
    use tokio::sync::mpsc;
    use tower_service::Service;

    use super::*;

    /// An API server that hears every request and answers none.
    #[derive(Clone)]
    struct Silent(mpsc::UnboundedSender<String>);

    impl Service<Request<Body>> for Silent {
        type Response = Response<Body>;
        type Error = kube::Error;
        type Future = BoxFuture<'static, kube::Result<Response<Body>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let _ = self.0.send(request.uri().path().to_owned());
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn a_look_that_is_never_answered_is_given_up_and_made_again() {
        let (hear, mut heard) = mpsc::unbounded_channel();
        let terms = Terms {
            host: "webhook.embark.svc".to_owned(),
            validity: Duration::from_secs(3600),
            settle: Duration::from_secs(1),
        };
        let readiness = watch::Sender::new(String::new());
        let mut told = readiness.subscribe();
        let keeper = Keeper {
            client: Client::new(Silent(hear), "embark"),
            namespace: "embark".to_owned(),
            source: Source::Secret { secret: "s".into(), configuration: "c".into(), terms },
            every: Duration::from_millis(1),
            within: Duration::from_millis(10),
            certificate: Arc::default(),
            readiness,
            metrics: Arc::new(Metrics::new(Counter::default())),
        };
        let keeping = tokio::spawn(keeper.keep());
        for look in 0..3 {
            let path = timeout(Duration::from_secs(60), heard.recv()).await;
            assert!(path.is_ok_and(|path| path.is_some_and(|p| p.ends_with("/c"))), "{look}");
        }
        let said = told.wait_for(|why| why.contains("not over within 10ms")).await;
        assert!(said.is_ok());
        keeping.abort();
    }
}
