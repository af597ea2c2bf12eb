//! The embark operator: turns EmbeddingModels into pods that serve them.
//!
//! ```text
//! watch EmbeddingModels, their children, their pods, what pods say ─ reconcile(model, context)
//!   validate      crds::resolve; the only place where a user is told no
//!   build         the children as they should be; pure
//!   apply         server-side, in order; what should not be there is pruned
//!   status        conditions of what was applied; written when it changed
//! ```
//!
//! One replica leads, by a Lease; the others wait. Every replica answers the API server's questions about pods (`webhook`).

pub mod app;
pub mod args;
pub mod check;
mod children;
mod client;
mod controller;
pub mod crds;
mod gate;
mod http;
mod kube_ext;
mod lease;
mod metrics;
mod names;
mod pod_monitors;
mod pods;
mod port;
mod process;
mod settings;
mod slim;
pub mod telemetry;
pub mod traces;
mod triggers;
mod watches;
mod webhook;
mod words;
mod work;
mod x509;
