//! Checks that gate readiness.

use serde::{Deserialize, Serialize};

/// One check that gates readiness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// What is embedded.
    pub input: SelfTestInput,
    /// What it must be near to.
    pub expected: SelfTestExpected,
    /// The least cosine between the two.
    pub min_cosine: f64,
}

/// The input of a self-test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SelfTestInput {
    /// For a text model.
    Text(String),
    /// For a categorical model.
    Category(String),
    /// For a tensor model: row-major values.
    Tensor(Vec<f64>),
}

/// What the vector of a self-test is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SelfTestExpected {
    /// A vector of the model's dimensions.
    Vector(Vec<f32>),
    /// The vector of another input.
    SimilarTo(SelfTestInput),
}
