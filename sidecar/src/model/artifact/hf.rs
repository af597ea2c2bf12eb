//! Files of Hugging Face's hub, or of a mirror with its layout: `ENDPOINT/ORGANISATION/REPOSITORY/resolve/COMMIT/FILE`.

use reqwest::Client;
use url::Url;

use super::{
    Environment, FetchCause,
    http::{Authorization, Remote},
    mounts::Secret,
};

/// The hub, unless [`ENDPOINT_VARIABLE`] names a mirror.
const ENDPOINT: &str = "https://huggingface.co";
/// As the hub's own programs call it.
const ENDPOINT_VARIABLE: &str = "HF_ENDPOINT";
/// As the hub's own programs call it.
const TOKEN_VARIABLE: &str = "HF_TOKEN";

/// A file of a repository.
pub(super) struct Repository<'a> {
    /// `organisation/repository`.
    pub(super) name: &'a str,
    /// A commit.
    pub(super) revision: &'a str,
    /// The file's path.
    pub(super) file: &'a str,
}

// === impl Repository ===

impl Repository<'_> {
    /// Where the file is fetched from.
    ///
    /// # Errors
    /// The environment names an endpoint that is none.
    pub(super) fn remote(
        &self,
        client: Client,
        secret: &Secret<'_>,
        environment: &Environment,
    ) -> Result<Remote, FetchCause> {
        let authorization = authorization(secret, environment)?;
        Ok(Remote { client, url: self.url(environment)?, authorization })
    }

    fn url(&self, environment: &Environment) -> Result<String, FetchCause> {
        let endpoint = environment.get(ENDPOINT_VARIABLE).unwrap_or(ENDPOINT);
        let is_one = Url::parse(endpoint).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()
        });
        if !is_one {
            // It is not repeated: it may hold a password.
            let problem = format!("{ENDPOINT_VARIABLE} is not an http:// or https:// URL");
            return Err(FetchCause::Reference { problem, transient: false });
        }
        let Repository { name, revision, file } = self;
        Ok(format!("{}/{name}/resolve/{revision}/{file}", endpoint.trim_end_matches('/')))
    }
}

// === free functions ===

/// What the hub knows us by. The environment's token goes to the environment's endpoint, or to the hub itself.
fn authorization(
    secret: &Secret<'_>,
    environment: &Environment,
) -> Result<Option<Authorization>, FetchCause> {
    let bearer = |token: &str| Authorization::Bearer(token.to_owned());
    match secret {
        Secret::None => Ok(environment.get(TOKEN_VARIABLE).map(bearer)),
        Secret::Environment(environment) => match environment.get(TOKEN_VARIABLE) {
            Some(token) => Ok(Some(bearer(token))),
            None => Err(secret.lacks("token", TOKEN_VARIABLE)),
        },
        Secret::Mounted(_) => Authorization::of(secret),
    }
}
