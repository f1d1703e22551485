//! The gRPC services, one file each: they authorize the caller, call the room that does the work, and convert the
//! result.

mod authorize;
mod discovery_service;
pub mod health;
pub mod routes;
mod sandbox_service;
pub mod services;
mod volume_service;
