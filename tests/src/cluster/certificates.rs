//! A cluster's certificates. They are made anew for each cluster and end with its state folder.

use std::{fs, path::Path};

use rcgen::KeyPair;

use crate::authority::{Authority, Subject};

/// Name, common name and group of each certificate. Every one has all addresses, and is for servers and clients.
const LEAVES: [(&str, &str, Option<&str>); 7] = [
    ("apiserver", "kube-apiserver", None),
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    ("kubelet", "system:node:node", Some("system:nodes")),
    ("front-proxy", "front-proxy-client", None),
];

/// Writes NAME.crt and NAME.key of all of them, of their authority (`ca`) and of what signs ServiceAccounts' tokens
/// (`service-accounts.key`, `.pub`) into a folder.
pub(super) fn write(folder: &Path, addresses: &[&str]) -> anyhow::Result<()> {
    let authority = Authority::new(folder, "ca")?;
    let tokens = KeyPair::generate()?;
    fs::write(folder.join("service-accounts.key"), tokens.serialize_pem())?;
    fs::write(folder.join("service-accounts.pub"), tokens.public_key_pem())?;
    for (name, common_name, group) in LEAVES {
        authority.issue(Subject { name, common_name, group, hosts: addresses })?;
    }
    Ok(())
}
