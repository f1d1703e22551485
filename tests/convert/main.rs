//! Conversions between the SDK's messages and custom resources, and what CreateSandbox and ListSandboxes decide: all without a cluster.
#![allow(clippy::unwrap_used)]

mod lists;
mod network;
mod network_refusals;
mod refusals;
mod round_trip;
mod shapes;
mod support;
mod templates;
