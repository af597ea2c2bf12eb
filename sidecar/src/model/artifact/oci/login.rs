//! The login for a registry, of a pull secret: Docker's configuration, as Kubernetes keeps it. Nothing of its content is in
//! any sentence.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::DOCKER_HUB;
use crate::model::artifact::{FetchCause, http::Authorization, mounts::Secret};

/// The key of a pull secret.
const KEY: &str = ".dockerconfigjson";
/// What stands for it outside of a cluster: the configuration itself, not its path.
const VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// Docker's configuration, as far as it is of use here.
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    /// The two in base64, with a colon between them.
    auth: String,
    registrytoken: String,
}

// === impl Entry ===

impl Entry {
    fn authorization(self) -> Option<Authorization> {
        let Entry { username, password, auth, registrytoken } = self;
        if !registrytoken.is_empty() {
            return Some(Authorization::Bearer(registrytoken));
        }
        if !username.is_empty() {
            return Some(Authorization::Basic { username, password });
        }
        let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Authorization::Basic { username: username.to_owned(), password: password.to_owned() })
    }
}

// === free functions ===

/// The login for a repository; `None`: the spec names no Secret.
///
/// # Errors
/// The Secret is no pull secret, or has no login for the registry.
pub(super) fn find(
    secret: &Secret<'_>,
    registry: &str,
    repository: &str,
) -> Result<Option<Authorization>, FetchCause> {
    if matches!(secret, Secret::None) {
        return Ok(None);
    }
    let json = secret.get(KEY, VARIABLE).ok_or_else(|| secret.lacks(KEY, VARIABLE))?;
    let wrong = |problem: String| FetchCause::Reference { problem, transient: true };
    // The error would quote what it does not understand.
    let configuration: Configuration = serde_json::from_str(json)
        .map_err(|_| wrong(format!("{KEY} is no configuration of Docker in JSON")))?;
    let name = format!("{registry}/{repository}");
    let entries = configuration.auths.into_iter().filter(|(key, _)| names(key, &name));
    // The longest says the most of the repository.
    let entry = entries.max_by_key(|(key, _)| host_and_path(key).len());
    let login = entry.and_then(|(_, entry)| entry.authorization());
    match login {
        Some(login) => Ok(Some(login)),
        None => Err(wrong(format!("{KEY} has no login for {registry}"))),
    }
}

/// Whether a key of the configuration is of a repository, which is called `registry/repository`.
fn names(key: &str, name: &str) -> bool {
    let key = host_and_path(key);
    let (hub, _) = DOCKER_HUB;
    let key = match key.split_once('/').map_or(key, |(host, _)| host) {
        "index.docker.io" | "registry-1.docker.io" => hub,
        _ => key,
    };
    !key.is_empty() && name.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'))
}

/// A key without what some programs put around a registry's name.
fn host_and_path(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::artifact::Environment;

    fn found(json: &str, registry: &str, repository: &str) -> Result<String, String> {
        let variables = [(VARIABLE.to_owned(), json.to_owned())];
        let environment: Environment = variables.into_iter().collect();
        match find(&Secret::Environment(&environment), registry, repository) {
            Ok(Some(Authorization::Basic { username, password })) => {
                Ok(format!("{username}:{password}"))
            }
            Ok(Some(Authorization::Bearer(token))) => Ok(token),
            Ok(None) => panic!("a Secret was named"),
            Err(cause) => Err(cause.to_string()),
        }
    }

    #[test]
    fn logins_are_found_by_registry_and_repository() {
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOmE6Yg=="},
            "ghcr.io": {"username": "wide", "password": "1"},
            "ghcr.io/org": {"username": "narrow", "password": "2"},
            "http://local:5000/v2/": {"registrytoken": "token"},
            "broken.example": {"auth": "?"}
        }}"#;
        for (registry, repository, expected) in [
            ("docker.io", "library/a", "hub:a:b"),
            ("ghcr.io", "other/a", "wide:1"),
            ("ghcr.io", "org/a", "narrow:2"),
            ("ghcr.io", "organisation/a", "wide:1"),
            ("local:5000", "a", "token"),
        ] {
            assert_eq!(found(json, registry, repository).as_deref(), Ok(expected));
        }
        for registry in ["ghcr.io.evil", "local", "broken.example"] {
            let sentence = format!(".dockerconfigjson has no login for {registry}");
            assert_eq!(found(json, registry, "a"), Err(sentence));
        }
    }

    #[test]
    fn what_is_no_configuration_is_told_without_its_content() {
        for json in ["hush", r#"{"auths": "hush"}"#, r#"{"auths": {"a": {"auth": ["hush"]}}}"#] {
            let sentence = found(json, "a", "b").unwrap_err();
            assert_eq!(sentence, ".dockerconfigjson is no configuration of Docker in JSON");
        }
        let sentence = found("", "a", "b").unwrap_err();
        assert!(sentence.ends_with("stands for it: set DOCKER_AUTH_CONFIG"), "{sentence}");
    }
}
