//! The data plane between a gRPC client and the agent's real binary, which runs here as a process of its own. The API
//! server is a small fake that knows one sandbox, its pod and its log.
#![allow(clippy::unwrap_used)]

mod exec;
mod files;
mod logs;
mod rotation;
mod support;
