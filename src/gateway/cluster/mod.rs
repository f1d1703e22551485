//! The Kubernetes API: calls with a timeout, and what is watched.

pub mod api;
pub mod runners;
pub mod sandbox_cache;
pub mod volumes;
