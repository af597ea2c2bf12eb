//! The sources that files are fetched from over a network. Each says only how a file is opened at some byte; how it is
//! received is the same for all.

use embark_crds::contract::Location;

use super::{
    Environment, FetchCause, FetchError, Request,
    body::{Failure, Opened},
    hf,
    http::{Authorization, Clients, Remote, public_part},
    mounts::{self, Secret},
    objects, oci,
};

/// A file somewhere else.
pub(super) enum Source {
    /// At a URL.
    Http(Remote),
    /// In a registry.
    Registry(Box<oci::Layer>),
    /// In a bucket.
    Object(objects::Object),
}

// === impl Source ===

impl Source {
    /// Where an artifact is fetched from, with the credentials that its spec names.
    ///
    /// # Errors
    /// The credentials or the CA bundle are not there or are none, or the file is not elsewhere.
    pub(super) async fn of(
        request: &Request<'_>,
        clients: &Clients,
        environment: &Environment,
    ) -> Result<Self, FetchError> {
        let of_secret = |cause| request.error("secretRef", cause);
        let of_bundle = |cause| request.error("caBundleRef", cause);
        let secret = Secret::of(request, environment).await.map_err(of_secret)?;
        let bundle = mounts::ca_bundle(request, environment).await.map_err(of_bundle)?;
        let client = clients.get(bundle.as_deref()).map_err(of_bundle)?;
        let source = match &request.artifact.location {
            Location::Http { url } => {
                let authorization = Authorization::of(&secret).map_err(of_secret)?;
                Source::Http(Remote { client, url: url.clone(), authorization })
            }
            Location::Hf { repository, revision, file } => {
                let repository = hf::Repository { name: repository, revision, file };
                let remote = repository.remote(client, &secret, environment);
                Source::Http(remote.map_err(of_secret)?)
            }
            Location::Oci { reference, title } => {
                let file = (reference.as_str(), title.as_str(), request.artifact.sha256);
                let layer = oci::Layer::new(file, client, &secret, environment);
                Source::Registry(Box::new(layer.map_err(of_secret)?))
            }
            Location::ObjectStore { url } => {
                let (secret, bundle) = (&secret, bundle.as_deref());
                let access =
                    objects::Access { secret, environment, bundle, settings: clients.settings() };
                Source::Object(objects::Object::new(url, &access).map_err(of_secret)?)
            }
            Location::Builtin { .. } | Location::File { .. } | Location::Pvc { .. } => {
                let problem = "is not fetched over a network".to_owned();
                let cause = FetchCause::Reference { problem, transient: false };
                return Err(request.error("uri", cause));
            }
        };
        Ok(source)
    }

    /// What it is called in sentences; no secret is in it.
    pub(super) fn address(&self) -> String {
        match self {
            Source::Http(remote) => public_part(&remote.url),
            Source::Registry(layer) => layer.address(),
            Source::Object(object) => object.address(),
        }
    }

    /// The file's bytes from `from` on, if it is still the one that `validator` came with; else from its beginning.
    pub(super) async fn open(&self, from: u64, validator: Option<&str>) -> Result<Opened, Failure> {
        match self {
            Source::Http(remote) => remote.open(from, validator).await,
            // A layer is its digest: there is no other at the same place.
            Source::Registry(layer) => layer.open(from).await,
            Source::Object(object) => object.open(from, validator).await,
        }
    }
}
