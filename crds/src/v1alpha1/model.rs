//! Which model is served, and what is taken from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{choice::Normalization, scalar::Quantity};
use crate::defaults;

/// Which model is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The ONNX file.
    pub source: Artifact,
    /// The most bytes that the model's file, or any other file that the spec names, may have. It bounds the download and its volume.
    #[serde(default = "defaults::model_size_limit")]
    pub size_limit: Quantity,
    /// Which vector is taken from the model.
    pub output: Output,
}

/// A file that is pinned by its digest. Nothing unverified is ever parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where the file is: builtin://model/file, http:// or https://host/path, s3://, gs:// or az://bucket/key, oci://repository@sha256:digest, hf://org/repository@commit/file, pvc://claim/path (in a cluster only) or file://path (outside of one only).
    #[schemars(length(min = 1, max = 2048))]
    pub uri: String,
    /// The SHA-256 digest of the file, as 64 hex digits.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-fA-F]{64}$"))]
    pub sha256: String,
    /// With oci:// the title of the layer that holds the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// A Secret with credentials for the source, in the namespace of the EmbeddingModel. Its keys go by the scheme: token, or username and password, for http://, https:// and hf://; AWS_ACCESS_KEY_ID, AWS_ENDPOINT, AZURE_STORAGE_ACCOUNT_NAME and their like for s3://, gs:// and az://; .dockerconfigjson for oci://.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// A ConfigMap with the certificates of the authorities that the source is trusted by, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<ConfigMapKeyReference>,
}

/// A Secret in the namespace of the EmbeddingModel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A key of a ConfigMap in the namespace of the EmbeddingModel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyReference {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key whose value is taken.
    #[serde(default = "defaults::ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Which vector is taken from the model, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The name of the model's output. Absent: its one float output whose last dimension is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// The length of the model's vectors. The model is checked against it.
    #[schemars(range(min = 1, max = 16384))]
    pub dimensions: u32,
    /// The length that vectors are cut to unless a caller asks for another. Absent: they are not cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16384))]
    pub truncate_dimensions: Option<u32>,
    /// What is done to a vector before it is given out: L2 divides it by its Euclidean length, also after it is cut; None leaves it.
    #[serde(default)]
    pub normalization: Normalization,
}
