//! Sandboxes for untrusted code on any Kubernetes cluster.
//!
//! Imports go one way, which `tests/architecture` checks: `api` ← `resources` ← `operator` and `gateway`; both call
//! agents through `agent_client`; `agent` knows nothing of Kubernetes.

#![deny(unreachable_pub)]

pub mod agent;
pub mod agent_client;
pub mod agent_contract;
pub mod api;
pub mod gateway;
pub mod kube;
pub mod net;
mod network_check;
pub mod network_probe;
pub mod operator;
pub mod process;
pub mod proto;
pub mod resources;
pub mod telemetry;
pub mod text;
pub mod token;
