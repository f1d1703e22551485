//! The gateway: `coreweave.sandbox.v1`, so that the public SDK runs on this cluster. It keeps nothing: the Kubernetes API is its only
//! store, and any replica serves any call.

pub mod caches;
pub mod cluster;
pub mod config;
pub mod create;
pub mod data;
pub mod error;
pub mod identity;
pub mod manage;
pub mod service;
pub mod state;
