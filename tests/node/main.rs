//! What needs pods that run: a whole cluster of one node.

#![cfg(test)]

mod autoscaling;
mod check;
mod harness;
mod injection;
mod live;
mod mounts;
mod quickstart;
mod transcripts;
