//! Kubeconfig files, as JSON, which is YAML too.

use std::path::Path;

use serde_json::{Value, json};

/// A user by the certificate of this name in a cluster's folder of certificates.
pub(super) fn certificate(certificates: &Path, name: &str) -> Value {
    let file = |extension: &str| certificates.join(name).with_extension(extension);
    json!({"client-certificate": file("crt"), "client-key": file("key")})
}

/// Writes a kubeconfig for this server, whose certificate the cluster's own authority has signed.
pub(super) fn write(
    path: &Path,
    server: &str,
    authority: &Path,
    user: &Value,
) -> anyhow::Result<()> {
    let cluster = json!({"server": server, "certificate-authority": authority});
    Ok(std::fs::write(path, config(&cluster, user).to_string())?)
}

/// The same cluster for another user.
pub(super) fn for_user(kubeconfig: &Value, user: &Value) -> Value {
    config(&kubeconfig["clusters"][0]["cluster"], user)
}

fn config(cluster: &Value, user: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "embark", "cluster": cluster}],
        "users": [{"name": "embark", "user": user}],
        "contexts": [{"name": "embark", "context": {"cluster": "embark", "user": "embark"}}],
        "current-context": "embark",
    })
}
