//! How a cluster is looked at.

use clap::{Args, ValueEnum};

/// Look at a cluster and say what is not as it should be, and what to do about it.
///
/// Nothing is written. The code of its end is 0 when all is well, warnings allowed; 1 when something is not; 2 when there is no
/// cluster to look at.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The namespace that the operator runs in.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "embark")]
    pub operator_namespace: String,
    /// The name of the Lease that its replicas elect their leader by. Absent: as its Deployment says, or embark-operator.
    #[arg(long, value_name = "NAME", value_parser = super::object_name)]
    pub lease_name: Option<String>,
    /// The namespaces whose models it serves, separated by commas. Absent: as its Deployment says, or every one.
    #[arg(long, value_name = "NAMESPACES", env = "EMBARK_WATCH_NAMESPACES", value_delimiter = ',', value_parser = super::namespace)]
    pub watch_namespaces: Vec<String>,
    /// Whose rights are looked at, as NAMESPACE/NAME: the operator's. Absent: those of whoever runs this.
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub service_account: Option<Account>,
    /// The MutatingWebhookConfiguration that gives pods a sidecar. Absent: those of the chart's labels that call the
    /// operator's namespace.
    #[arg(long, value_name = "NAME")]
    pub webhook: Option<String>,
    /// The namespace that a pod is tried in, to see whether the webhook answers. None is made.
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// How the findings are written.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How findings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

// === free functions ===

fn account(text: &str) -> Result<Account, String> {
    let is_name = |part: &str| !part.is_empty() && !part.contains('/');
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("it must be NAMESPACE/NAME, such as embark/embark".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_namespace_and_a_name() {
        let of = |text| account(text).map(|Account { namespace, name }| [namespace, name]);
        assert_eq!(of("a/b"), Ok(["a".to_owned(), "b".to_owned()]));
        for text in ["", "a", "/a", "a/", "a/b/c"] {
            assert!(account(text).is_err(), "{text}");
        }
    }
}
