//! What can be tested on a control plane: a real API server, and no pod ever runs.

#![cfg(test)]

mod cert_manager;
mod chaos;
mod chart;
mod check;
mod children;
mod crd;
mod edits;
mod faults;
mod handover;
mod harness;
mod malformed;
mod many;
mod namespaced;
mod operator;
mod pause;
mod predecessor;
mod pruning;
mod quiet;
mod reports;
mod restarts;
mod scaling;
mod specs;
mod telemetry;
mod transcripts;
mod upgrade;
mod webhook;
mod webhook_beside;
mod webhook_certificates;
mod world;
