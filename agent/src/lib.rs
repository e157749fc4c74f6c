//! Store-and-forward gateway agent for hospital supply-chain feeds; below, its architecture.
//!
#![doc = include_str!("../ARCHITECTURE.md")]

// In the order data flows.
pub mod clock;
pub mod contract;
mod der;
pub mod forward;
pub mod limits;
pub mod record;
pub mod source;
pub mod spool;
pub mod uplink;

pub mod agent;
pub mod alerts;
pub mod audit;
pub mod cli;
pub mod config;
pub mod enrolment;
pub mod log;
pub mod metrics;
pub mod overrides;
pub mod preflight;
pub mod reload;
pub mod renewal;
pub mod retirement;
pub mod rollout;
pub mod secrets;
pub mod sources;
pub mod status;
pub mod systemd;
pub mod threads;
pub mod timed;

#[cfg(feature = "hub")]
pub mod hub;
