//! Files of OCI registries: the layer of an artefact that bears a title. Three requests: a token, where the registry asks
//! for one; the manifest, which is checked against its pinned digest; the layer, whole or from where it broke off.
//!
//! Not by oci-client, which reads manifests and answers with tokens of any length, and cannot go on with a layer.

use std::net::IpAddr;

use embark_crds::contract::Sha256;
use parking_lot::Mutex;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, RANGE, WWW_AUTHENTICATE},
};
use sha2::Digest as _;
use url::Url;

use super::{
    Environment, FetchCause,
    body::{Failure, Opened},
    http::{Authorization, opened, small},
    mounts::Secret,
};

mod challenge;
mod login;
mod manifest;

use challenge::Challenge;
use manifest::Blob;

/// The most bytes of a manifest, as registries bound them.
const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of an answer with a token.
const MAX_TOKEN_BYTES: usize = 256 * 1024;
/// Manifests that are read.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Names registries, with ports, between commas, that are spoken to without encryption.
const PLAIN_HTTP_VARIABLE: &str = "EMBARK_OCI_PLAIN_HTTP";
/// What Docker's hub is called, and where it answers.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A file in a registry.
pub(super) struct Layer {
    client: Client,
    place: Place,
    title: String,
    /// The file's digest.
    expected: Sha256,
    login: Option<Authorization>,
    /// What the registry knows us by, once it asked.
    authorization: Mutex<Option<Authorization>>,
    /// The layer, once the manifest was read.
    blob: Mutex<Option<Blob>>,
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// `scheme://host:port` of the registry.
    origin: String,
    /// As the spec calls the registry.
    registry: String,
    repository: String,
    digest: Sha256,
}

// === impl Layer ===

impl Layer {
    /// The layer `title` of `reference`, which is `registry/repository@sha256:…`.
    ///
    /// # Errors
    /// The reference is none, or the Secret holds no login for the registry.
    pub(super) fn new(
        (reference, title, expected): (&str, &str, Sha256),
        client: Client,
        secret: &Secret<'_>,
        environment: &Environment,
    ) -> Result<Self, FetchCause> {
        let plain = environment.get(PLAIN_HTTP_VARIABLE).unwrap_or_default();
        let place = Place::of(reference, plain).ok_or_else(|| FetchCause::Reference {
            problem: "is no registry/repository@sha256:digest".to_owned(),
            transient: false,
        })?;
        let login = login::find(secret, &place.registry, &place.repository)?;
        let (authorization, blob) = (Mutex::default(), Mutex::default());
        let title = title.to_owned();
        Ok(Layer { client, place, title, expected, login, authorization, blob })
    }

    /// What it is called in sentences.
    pub(super) fn address(&self) -> String {
        let Place { registry, repository, digest, .. } = &self.place;
        format!("oci://{registry}/{repository}@sha256:{digest}")
    }

    pub(super) async fn open(&self, from: u64) -> Result<Opened, Failure> {
        let blob = self.blob().await?;
        let response = self
            .get(&format!("blobs/sha256:{}", blob.digest), |request| match from {
                0 => request,
                from => request.header(RANGE, format!("bytes={from}-")),
            })
            .await?;
        let opened = opened(response, from)?;
        Ok(Opened { total: opened.total.or(Some(blob.size)), ..opened })
    }

    /// The layer by its title. The manifest is read once.
    async fn blob(&self) -> Result<Blob, Failure> {
        if let Some(blob) = *self.blob.lock() {
            return Ok(blob);
        }
        let path = format!("manifests/sha256:{}", self.place.digest);
        let response = self.get(&path, |request| request.header(ACCEPT, MANIFESTS)).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::answered(response.status()));
        }
        let bytes = small(response, MAX_MANIFEST_BYTES).await?;
        if Sha256(sha2::Sha256::digest(&bytes).into()) != self.place.digest {
            return Err(Failure::lasting("gave another manifest than its digest names"));
        }
        let blob = manifest::layer(&bytes, &self.title).map_err(Failure::lasting)?;
        if blob.digest != self.expected {
            let (found, expected) = (blob.digest, self.expected);
            let problem =
                format!("has a layer of this title whose sha256 is {found}, not {expected}");
            return Err(Failure::lasting(problem));
        }
        *self.blob.lock() = Some(blob);
        Ok(blob)
    }

    /// An answer of the repository. Where the registry asks who we are, it is told, and asked again.
    async fn get(
        &self,
        path: &str,
        shape: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let url = format!("{}/v2/{}/{path}", self.place.origin, self.place.repository);
        let send = |authorization: Option<Authorization>| {
            let request = shape(self.client.get(&url));
            let request = match authorization {
                Some(authorization) => authorization.put_on(request),
                None => request,
            };
            request.send()
        };
        let known = self.authorization.lock().clone();
        let response = send(known).await.map_err(Failure::of)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = challenges.iter().find_map(|value| Challenge::parse(value.to_str().ok()?));
        let challenge = challenge.ok_or_else(|| Failure::answered(StatusCode::UNAUTHORIZED))?;
        let authorization = self.authorize(challenge).await?;
        *self.authorization.lock() = Some(authorization.clone());
        send(Some(authorization)).await.map_err(Failure::of)
    }

    /// What the registry knows us by, of what it asks for.
    async fn authorize(&self, challenge: Challenge) -> Result<Authorization, Failure> {
        let (realm, service, scope) = match (challenge, &self.login) {
            (Challenge::Basic, Some(login)) => return Ok(login.clone()),
            (Challenge::Basic, None) => {
                return Err(Failure::lasting("asks who we are, and secretRef names no Secret"));
            }
            (Challenge::Bearer { .. }, Some(token @ Authorization::Bearer(_))) => {
                return Ok(token.clone());
            }
            (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
        };
        let mut url = self.realm(&realm)?;
        let pull = format!("repository:{}:pull", self.place.repository);
        url.query_pairs_mut().append_pair("scope", scope.as_deref().unwrap_or(&pull));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let request = self.client.get(url);
        let request = match &self.login {
            Some(login) => login.put_on(request),
            None => request,
        };
        let response = request.send().await.map_err(Failure::of)?;
        if response.status() != StatusCode::OK {
            let answered = Failure::answered(response.status());
            let problem = format!("gives no token: {}", answered.problem);
            return Err(Failure { problem, ..answered });
        }
        let bytes = small(response, MAX_TOKEN_BYTES).await?;
        let token = challenge::token(&bytes).ok_or_else(|| {
            Failure::lasting("gives no token: what was answered is not JSON with one")
        })?;
        Ok(Authorization::Bearer(token))
    }

    /// Where tokens are given. A login goes over no wire that is less private than the registry's.
    fn realm(&self, realm: &str) -> Result<Url, Failure> {
        let url = Url::parse(realm).ok().filter(Url::has_host);
        let private = self.place.origin.starts_with("https:");
        match url {
            Some(url) if url.scheme() == "https" || (url.scheme() == "http" && !private) => Ok(url),
            _ => Err(Failure::lasting("names no https:// URL that gives tokens")),
        }
    }
}

// === impl Place ===

impl Place {
    /// Of `registry/repository@sha256:…`; registries in `plain` are spoken to without encryption.
    fn of(reference: &str, plain: &str) -> Option<Self> {
        let (name, digest) = reference.split_once("@sha256:")?;
        let digest = Sha256::parse(digest).ok()?;
        let (registry, repository) = name.split_once('/')?;
        let (hub, answers) = DOCKER_HUB;
        let is_hub = registry == hub;
        let repository = if is_hub && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let host = if is_hub { answers } else { registry };
        let is_plain = is_loopback(host) || plain.split(',').any(|name| name.trim() == registry);
        let scheme = if is_plain { "http" } else { "https" };
        let origin = format!("{scheme}://{host}");
        Some(Place { origin, registry: registry.to_owned(), repository, digest })
    }
}

// === free functions ===

/// Whether a host, with or without a port, is this machine. Registries there have no certificates, as Docker has it.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
