//! The Kubernetes API: calls with a timeout, and what is watched.

pub mod api;
pub(crate) mod nodes;
pub mod runners;
pub mod sandbox_cache;
pub(crate) mod volumes;
