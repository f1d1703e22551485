//! Sandboxes for untrusted code on any Kubernetes cluster.
//!
//! Rooms, and which may enter which (a test holds them to it): `api` ← `resources` ← `operator`, `gateway`; both call agents through
//! `agent_client`; `agent` knows nothing of Kubernetes.

pub mod agent;
pub mod agent_client;
pub mod agent_contract;
pub mod api;
pub mod gateway;
pub mod kube;
pub mod net;
pub mod operator;
pub mod process;
pub mod proto;
pub mod resources;
pub mod telemetry;
pub mod text;
pub mod token;
