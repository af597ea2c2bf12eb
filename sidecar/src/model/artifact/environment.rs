//! What the process's environment says of sources: credentials, endpoints, certificates. It is read once.

use std::{collections::BTreeMap, fmt};

/// What names of variables that sources go by begin with.
const PREFIXES: &[&str] =
    &["AWS_", "AZURE_", "DOCKER_AUTH_CONFIG", "EMBARK_", "GOOGLE_", "HF_", "SSL_CERT_FILE"];

/// Variables of the environment that sources go by.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

// === impl Environment ===

impl Environment {
    /// The process's own. What is not UTF-8 is not there.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// The value of a variable; `None`: it is not set, or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Every variable whose name begins with `prefix`.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let is_ours = |name: &String| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        Environment(variables.into_iter().filter(|(name, _)| is_ours(name)).collect())
    }
}

/// Names alone: values are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_sources_go_by_is_kept_and_no_value_is_shown() {
        let variables = [("HF_TOKEN", "secret"), ("PATH", "/bin"), ("AWS_REGION", "")];
        let environment: Environment = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        assert_eq!(format!("{environment:?}"), r#"{"AWS_REGION", "HF_TOKEN"}"#);
        assert_eq!(environment.get("HF_TOKEN"), Some("secret"));
        assert_eq!(environment.get("AWS_REGION"), None);
    }
}
