//! The CustomResourceDefinitions: written out, or brought to a cluster.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use embark_crds::{crd, v1alpha1::EmbeddingModel};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::wait::{self, await_condition, conditions},
};
use tokio::time::timeout;

use crate::{app::ConnectError, kube_ext::FIELD_MANAGER};

/// How long an API server may take to serve a definition that it took.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);

/// Why the definitions are not where they should be.
#[derive(Debug, thiserror::Error)]
pub enum CrdsError {
    /// Standard output takes nothing.
    #[error("failed to write to standard output")]
    Write(#[source] io::Error),
    /// There is no cluster to talk to.
    #[error(transparent)]
    Connect(ConnectError),
    /// The API server refused them.
    #[error("failed to apply the CustomResourceDefinition {name}")]
    Apply {
        /// The definition.
        name: String,
        /// The API server's answer.
        source: kube::Error,
    },
    /// It took them, and cannot be asked how they are.
    #[error("failed to watch the CustomResourceDefinition {name}")]
    Watch {
        /// The definition.
        name: String,
        /// What happened.
        source: wait::Error,
    },
    /// It took them, and does not serve them.
    #[error("the cluster does not serve {name} within {ESTABLISHED_WITHIN:?}")]
    NotEstablished {
        /// The definition.
        name: String,
    },
}

/// Writes all of it, or as much as the reader wants: one who has enough, as `head` does, is no failure.
///
/// # Errors
/// Standard output takes nothing.
pub fn print() -> Result<(), CrdsError> {
    let mut out = io::stdout().lock();
    match out.write_all(crd::crd_yaml().as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CrdsError::Write),
    }
}

/// Applies the definitions on the server's side, and waits until they are served.
///
/// # Errors
/// There is no cluster, or it refuses them, or does not serve them in time.
pub async fn apply() -> Result<(), CrdsError> {
    let client = crate::app::connect().await.map_err(CrdsError::Connect)?;
    apply_with(client).await
}

async fn apply_with(client: Client) -> Result<(), CrdsError> {
    let name = EmbeddingModel::crd().name_any();
    let api = Api::<CustomResourceDefinition>::all(client);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(crd::crd_json()))
        .await
        .map_err(|source| CrdsError::Apply { name: name.clone(), source })?;
    let established = await_condition(api, &name, conditions::is_crd_established());
    match timeout(ESTABLISHED_WITHIN, established).await {
        Ok(Ok(_)) => {
            tracing::info!(name, "applied, and served by the cluster");
            Ok(())
        }
        Ok(Err(source)) => Err(CrdsError::Watch { name, source }),
        Err(_) => Err(CrdsError::NotEstablished { name }),
    }
}
