//! What can be tested on a control plane: a real API server, and no pod ever runs.

#![cfg(test)]

mod chart;
mod check;
mod children;
mod crd;
mod harness;
mod operator;
mod specs;
mod telemetry;
mod transcripts;
mod webhook;
mod webhook_certificates;
