//! Sandboxes for untrusted code on any Kubernetes cluster.
//!
//! Rooms, and which may enter which (a test holds them to it): `api` ← `resources` ← `operator`; `agent` enters none.

pub mod agent;
pub mod agent_client;
pub mod api;
pub mod gateway;
pub mod operator;
pub mod process;
pub mod proto;
pub mod resources;
pub mod telemetry;
pub mod token;
