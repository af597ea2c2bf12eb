//! Where the programs that a cluster is made of are.

use std::path::PathBuf;

use anyhow::bail;

/// Folders that may hold them, in this order: another set of etcd and kube-apiserver, and what `tests/run` built.
const VARIABLES: [&str; 2] = ["KUBEBUILDER_ASSETS", "EMBARK_TEST_KUBERNETES"];

/// The program of this name, such as one that a cluster is made of, or `helm`; or what is beside one.
///
/// # Errors
/// It is nowhere.
pub fn find(name: &str) -> anyhow::Result<PathBuf> {
    let Some(found) = folders().into_iter().map(|folder| folder.join(name)).find(|p| p.exists())
    else {
        bail!(
            "{name} is neither in {} nor on the PATH: run the tests by `bash tests/run`, which builds it",
            VARIABLES.join(" nor in ")
        );
    };
    Ok(found)
}

/// The folders in which programs are looked for, for the PATH of what a test starts.
pub(super) fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
}
