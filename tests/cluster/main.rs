//! What can be tested on a control plane: a real API server, and no pod ever runs.

#![cfg(test)]

mod chart;
mod check;
mod crd;
mod harness;
mod operator;
mod pruning;
mod specs;
mod telemetry;
mod transcripts;
